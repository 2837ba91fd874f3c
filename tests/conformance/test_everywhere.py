"""Which interpreters `make conformance` chooses, and the table it prints."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conformance import everywhere
from tests.conformance.everywhere import Interpreter


def test_this_interpreter_is_described() -> None:
    found = everywhere.describe(sys.executable)
    assert found is not None
    assert found.version == sys.version.split()[0].rstrip("+")
    assert found.free_threaded is not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_what_is_no_interpreter_is_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert everywhere.choose([str(broken), "/no/such/python", "/bin/true"]) == []


def test_one_interpreter_of_each_version_is_chosen(monkeypatch) -> None:
    known = {
        "/one": Interpreter("/one", "3.13.0", 13, False, has_tests=False),
        "/two": Interpreter("/two", "3.13.5", 13, False, has_tests=True),
        "/three": Interpreter("/three", "3.13.6", 13, False, has_tests=True),
        "/free": Interpreter("/free", "3.13.6", 13, True, has_tests=True),
        "/old": Interpreter("/old", "3.11.7", 11, False, has_tests=True),
    }
    monkeypatch.setattr(everywhere, "describe", known.get)
    chosen = everywhere.choose([*known, "/unknown"])
    assert [each.path for each in chosen] == ["/old", "/two", "/free"]


def test_the_table_tells_who_failed_and_who_could_not_run() -> None:
    clean = Interpreter("/one", "3.11.7", 11, False, True, {"totals": {"passed": 1758}}, 0)
    failed = Interpreter("/two", "3.14.0", 14, True, True, {"totals": {"failed": 2}}, 1)
    without = Interpreter("/three", "3.12.0", 12, False, False)
    lines = everywhere.table([clean, failed, without]).splitlines()
    assert lines[1].startswith("3.11.7") and "1758" in lines[1] and lines[1].endswith("OK")
    assert lines[2].startswith("3.14.0t") and lines[2].endswith("FAILED")
    assert lines[3].endswith("comes without CPython's tests")


def test_no_interpreter_is_a_failure(capsys) -> None:
    assert everywhere.main(["/bin/true"]) == 1
