"""The runner itself: every kind of ending is told from the others, and decides the exit status.

One run of a small suite, on a subclass of the stock loop, serves most tests here. Its tests behave
differently on the stock loop itself, which the runner uses as the control.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import injection, plan, skips

HERE = Path(__file__).resolve().parent
LOOP = "harness.stock:new_event_loop"
MOST_ENTRIES = 60

SUITE = """
import asyncio, fcntl, os, signal, subprocess, time, unittest
from pathlib import Path

FAILED_ONCE = Path(os.environ["SAMPLE_SCRATCH"], "failed-once")
LEFT_BEHIND = Path(os.environ["SAMPLE_SCRATCH"], "left-behind")

class Sample(unittest.TestCase):
    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.is_control = type(self.loop).__name__ != "StockLoop"

    def test_passes(self):
        self.assertFalse(self.is_control)

    def test_fails(self):
        self.assertTrue(self.is_control, "only the control may pass")

    def test_hangs(self):
        if not self.is_control:
            time.sleep(600)

    def test_hangs_deaf_to_signals(self):
        if not self.is_control:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)

    def test_crashes(self):
        if not self.is_control:
            os.kill(os.getpid(), signal.SIGKILL)

    def test_exits(self):
        if not self.is_control:
            os._exit(0)

    def test_forks_and_returns_twice(self):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            self.fail("the parent's result counts")

    def test_fails_everywhere(self):
        self.fail("no such host")

    def test_fails_once(self):
        if not FAILED_ONCE.exists():
            FAILED_ONCE.touch()
            self.fail("the first time")

    def test_skips_itself(self):
        self.skipTest("not on this platform")

    def test_listed_fails(self):
        self.fail("as listed")

    def test_listed_passes(self):
        pass

    def test_listed_is_not_run(self):
        raise SystemExit("it was run")

    def test_leaves_a_process(self):
        with LEFT_BEHIND.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for as long as the process lives
            child = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fileno()])
        child.returncode = 0

class WithoutLoop(unittest.TestCase):
    def test_passes(self):
        self.assertEqual(1 + 1, 2)
"""

SKIPS = """
[[skip]]
test = "test_sample.Sample.test_listed_fails"
reason = "reaches into the selector"

[[skip]]
test = "test_sample.*.test_listed_passes"
reason = "reaches into the selector, they said"

[[skip]]
test = "test_sample.Sample.test_listed_is_not_run"
reason = "repeats another test"
run = false

[[skip]]
test = "test_sample.Sample.test_that_was_removed"
reason = "reaches into the selector"

[[skip]]
test = "test_sample.Sample.test_of_a_later_patch_release"
reason = "reaches into the selector"
may_be_absent = true

[[skip]]
test = "test_sample.Sample.test_that_was_removed"
reason = "out of bounds, so its absence is no matter"
python = "<3.10"
"""


@dataclass
class Suite:
    """The sample suite on disk."""

    root: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call the runner on the suite as a user would."""
        command = [sys.executable, str(HERE / "run.py"), "--package", "sample_suite"]
        command += ["--loop", LOOP, "--skips", str(self.root / "skips.toml"), "--timeout", "1"]
        return subprocess.run(
            [*command, *arguments],
            env={**os.environ, "PYTHONPATH": str(self.root), "SAMPLE_SCRATCH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=60,
        )


@dataclass
class Finished:
    """The one complete run: what it printed and what it wrote."""

    status: int
    output: str
    document: dict[str, Any]

    def verdict(self, name: str) -> str:
        """The verdict on a test of the class `Sample`."""
        return str(self._entry(name)["verdict"])

    def detail(self, name: str) -> str:
        """What was recorded about a test of the class `Sample`."""
        return str(self._entry(name)["detail"])

    def _entry(self, name: str) -> dict[str, Any]:
        wanted = f"test_sample.Sample.{name}"
        (entry,) = (entry for entry in self.document["tests"] if entry["test"] == wanted)
        return entry


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    root = tmp_path_factory.mktemp("suite")
    package = root / "sample_suite"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "test_sample.py").write_text(SUITE)
    (root / "skips.toml").write_text(SKIPS)
    return Suite(root)


@pytest.fixture(scope="module")
def finished(suite: Suite) -> Finished:
    report = suite.root / "report.json"
    process = suite.run("--jobs", "4", "--report", str(report))
    assert report.exists(), process.stderr
    return Finished(process.returncode, process.stdout, json.loads(report.read_text()))


class TestVerdicts:
    pytestmark = pytest.mark.time_limit(60)  # the first one waits for the run

    def test_a_pass_on_the_loop_counts(self, finished: Finished) -> None:
        assert finished.verdict("test_passes") == "passed"

    def test_a_failure_on_the_loop_alone_is_a_failure(self, finished: Finished) -> None:
        assert finished.verdict("test_fails") == "failed"
        assert "only the control may pass" in finished.detail("test_fails")

    def test_a_hang_is_reported_with_its_stack(self, finished: Finished) -> None:
        assert finished.verdict("test_hangs") == "hang"
        assert "in test_hangs" in finished.detail("test_hangs")

    def test_a_hang_that_no_signal_reaches_is_ended(self, finished: Finished) -> None:
        assert finished.verdict("test_hangs_deaf_to_signals") == "hang"

    def test_a_death_by_signal_is_a_crash(self, finished: Finished) -> None:
        assert finished.verdict("test_crashes") == "crash"
        assert "SIGKILL" in finished.detail("test_crashes")

    def test_an_exit_without_a_result_is_a_crash(self, finished: Finished) -> None:
        assert finished.verdict("test_exits") == "crash"
        assert "exit status 0" in finished.detail("test_exits")

    def test_a_forked_child_cannot_speak_for_the_test(self, finished: Finished) -> None:
        assert "the parent's result counts" in finished.detail("test_forks_and_returns_twice")

    def test_a_failure_on_the_stock_loop_too_is_the_machine(self, finished: Finished) -> None:
        assert finished.verdict("test_fails_everywhere") == "env"

    def test_a_failure_that_does_not_repeat_is_flaky(self, finished: Finished) -> None:
        assert finished.verdict("test_fails_once") == "flaky"

    def test_a_test_that_skips_itself_is_not_applicable(self, finished: Finished) -> None:
        assert finished.verdict("test_skips_itself") == "n/a"

    def test_a_listed_failure_is_skipped_with_its_reason(self, finished: Finished) -> None:
        assert finished.verdict("test_listed_fails") == "skipped"
        assert finished.detail("test_listed_fails") == "reaches into the selector"

    def test_a_listed_test_that_passes_is_reported(self, finished: Finished) -> None:
        assert finished.verdict("test_listed_passes") == "unexpected pass"

    def test_a_listed_test_can_be_left_out(self, finished: Finished) -> None:
        assert finished.verdict("test_listed_is_not_run") == "skipped"

    def test_an_entry_that_matches_nothing_is_reported(self, finished: Finished) -> None:
        assert finished.document["stale"] == ["test_sample.Sample.test_that_was_removed"]

    def test_a_pass_without_a_loop_is_counted_apart(self, finished: Finished) -> None:
        verdicts = {entry["test"]: entry["verdict"] for entry in finished.document["tests"]}
        assert verdicts["test_sample.WithoutLoop.test_passes"] == "no loop"

    def test_the_run_fails_and_names_why(self, finished: Finished) -> None:
        assert finished.status == 1
        assert finished.document["ok"] is False
        assert "HANG: test_sample.Sample.test_hangs: " in finished.output
        assert "unexpected pass: test_sample.Sample.test_listed_passes" in finished.output
        assert finished.output.rstrip().endswith("FAILED")

    def test_processes_that_a_test_leaves_are_ended(self, suite: Suite, finished: Finished) -> None:
        assert finished.verdict("test_leaves_a_process") == "passed"
        with (suite.root / "left-behind").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


class TestExitStatus:
    def test_passes_alone_succeed(self, suite: Suite) -> None:
        process = suite.run("--tests", "*.test_passes")
        assert process.returncode == 0
        assert process.stdout.rstrip().endswith("OK")

    @pytest.mark.parametrize("test", ["test_fails", "test_hangs", "test_listed_passes"])
    def test_each_bad_ending_fails_the_run(self, suite: Suite, test: str) -> None:
        assert suite.run("--tests", f"*.Sample.{test}").returncode == 1

    def test_a_module_that_cannot_be_imported_fails_the_run(self, suite: Suite) -> None:
        process = suite.run("--modules", "test_missing")
        assert process.returncode == 1
        assert "No module named 'sample_suite.test_missing'" in process.stdout


class TestSkipList:
    def parse(self, tmp_path: Path, text: str) -> list[skips.Skip]:
        path = tmp_path / "skips.toml"
        path.write_text(text)
        return skips.load_skips(path)

    @pytest.mark.parametrize(
        ("bounds", "version", "holds"),
        [
            ("", (3, 10, 0), True),
            (">=3.12", (3, 12, 0), True),
            (">=3.12", (3, 11, 9), False),
            (">=3.11,<3.13", (3, 12, 5), True),
            (">=3.11,<3.13", (3, 13, 0), False),
            ("<=3.13", (3, 13, 7), True),
            (">3.13", (3, 13, 7), False),
            ("==3.12.1", (3, 12, 2), False),
        ],
    )
    def test_bounds(self, bounds: str, version: tuple[int, int, int], holds: bool) -> None:
        entry = skips.Skip("test_x.*", "reason", python=bounds)
        assert entry.applies_to(skips.Interpreter(version, False)) is holds

    def test_free_threaded_bound(self) -> None:
        entry = skips.Skip("test_x.*", "reason", free_threaded=True)
        assert not entry.applies_to(skips.Interpreter((3, 14, 0), False))
        assert entry.applies_to(skips.Interpreter((3, 14, 0), True))

    @pytest.mark.parametrize(
        "text",
        [
            '[[skip]]\ntest = "test_x.*"',
            '[[skip]]\nreason = "no test"',
            '[[skip]]\ntest = "test_x.*"\nreason = "r"\npyhton = ">=3.12"',
            '[[skip]]\ntest = "test_x.*"\nreason = "r"\npython = "3.12"',
        ],
        ids=["no reason", "no test", "unknown key", "no comparison"],
    )
    def test_malformed_entries_are_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ValueError):
            self.parse(tmp_path, text)

    def test_the_list_of_the_project_is_well_formed_and_short(self) -> None:
        entries = skips.load_skips(HERE / "skips.toml")
        assert 0 < len(entries) < MOST_ENTRIES
        patterns = [(entry.pattern, entry.python, entry.free_threaded) for entry in entries]
        assert len(set(patterns)) == len(patterns)


class TestInjection:
    @pytest.fixture
    def source(self) -> injection.LoopSource:
        return injection.load_source("tests.conformance.harness.stock:new_event_loop")

    def test_a_stand_in_makes_the_loop_whatever_the_selector(
        self, source: injection.LoopSource
    ) -> None:
        stand_in = injection.stand_in_for(asyncio.SelectorEventLoop, source)
        loop = stand_in(object())
        loop.close()
        assert type(loop) is source.loop_class
        assert isinstance(loop, stand_in)
        assert source.used == 1

    def test_a_subclass_of_a_stand_in_is_a_subclass_of_the_loop(
        self, source: injection.LoopSource
    ) -> None:
        stand_in: Any = injection.stand_in_for(asyncio.SelectorEventLoop, source)

        class Derived(stand_in):
            def time(self) -> float:
                return super().time() + 1.0

        loop = Derived()
        loop.close()
        assert isinstance(loop, source.loop_class)
        assert source.used == 1

    def test_inherited_methods_can_be_named_through_a_stand_in(
        self, source: injection.LoopSource
    ) -> None:
        stand_in: Any = injection.stand_in_for(asyncio.SelectorEventLoop, source)
        assert stand_in.call_soon is asyncio.SelectorEventLoop.call_soon

    def test_every_module_of_cpython_is_run_or_left_out_for_a_reason(self) -> None:
        found = plan.discover(plan.DEFAULT_PACKAGE)
        assert {"test_events", "test_sock_lowlevel", "test_tasks"} <= set(found)
        assert not plan.NOT_RUN.keys() & set(found)
        assert plan.PLANS.keys() <= set(found)
