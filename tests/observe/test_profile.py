"""`python -m tokioloop profile`: stacks out of perf, by layer, and the pictures."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest
from tokioloop import _core
from tokioloop.observe import perf_record, stacks
from tokioloop.observe import profile as profile_command
from tokioloop.observe.perf_record import PerfUnavailable, Recorder

SAMPLES = """\
python  4711
\tffffffff81 tcp_sendmsg ([kernel.kallsyms])
\t7f01 __send (/lib/x86_64-linux-gnu/libc.so.6)
\t7f02 tokioloop_reactor::stream::send::h0123456789abcdef (/site/tokioloop/_core.cpython-313.so)
\t7f03 py::data_received:/srv/app.py (/tmp/perf-4711.map)

python  4711
\t7f04 __memmove_avx (/lib/x86_64-linux-gnu/libc.so.6)
\t7f05 tokioloop_reactor::read_ring::take (/site/tokioloop/_core.cpython-313.so)

python  4711
\t7f06 <core::option::Option<T>>::map (/site/tokioloop/_core.cpython-313.so)

python  4711
\t7f07 _PyEval_EvalFrameDefault (/usr/bin/python3.13)
\t7f08 py::data_received:/srv/app.py (/tmp/jitted-4711-8.so)
\t7f09 _core::py::call (/site/tokioloop/_core.cpython-313.so)

python  4711
\t7f0a gc_collect_main (/usr/lib/libpython3.13.so.1.0)
\t7f0b py::_run_once:<frozen importlib> (/tmp/perf-4711.map)

"""


def test_each_sample_counts_for_the_layer_that_spends_the_time():
    profile = stacks.parse(SAMPLES.splitlines(keepends=True))
    assert profile.samples == 5
    assert dict(profile.layers) == {
        "kernel": 1,
        "reactor": 1,
        "binding": 1,
        "user code": 1,
        "interpreter": 1,
    }


def test_stacks_are_folded_outermost_first_and_named_for_people():
    profile = stacks.parse(SAMPLES.splitlines(keepends=True))
    folded = list(profile.folded_lines())
    assert (
        "data_received (app.py)_[j];tokioloop_reactor::stream::send;__send;tcp_sendmsg_[k] 1"
        in folded
    )
    assert len(folded) == 5


def test_what_is_below_a_function_can_be_cut_out():
    lines = SAMPLES.splitlines(keepends=True)
    inner = stacks.parse(lines, below="data_received")
    assert list(inner.folded_lines()) == [
        "_PyEval_EvalFrameDefault 1",
        "tokioloop_reactor::stream::send;__send;tcp_sendmsg_[k] 1",
    ]
    assert stacks.parse(lines, below="nowhere").samples == 5


def test_the_summary_adds_up_to_the_whole():
    text = stacks.parse(SAMPLES.splitlines(keepends=True)).summary()
    by_layer = text.split("time by layer\n")[1].split("\n\n")[0].splitlines()
    shares = [float(line.split("%")[0]) for line in by_layer]
    assert len(shares) == len(stacks.LAYERS)
    assert sum(shares) == pytest.approx(100)


def test_no_samples_are_no_profile():
    assert stacks.parse([]).samples == 0


def profile(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tokioloop", "profile", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=110,
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "name either a script"),
        (("--workload", "proto", "--", "x.py"), "name either a script"),
        (("--compare", "rloop", "--", "x.py"), "compare with an earlier profile"),
        (("--compare", "befor", "--", "x.py"), "no earlier profile at befor"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, arguments, text):
    done = profile(tmp_path, *arguments)
    assert done.returncode == 1
    assert text in done.stderr
    assert "x.py" not in done.stderr, "the script was run first"
    assert os.listdir(tmp_path) == []


def test_without_perf_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PerfUnavailable, match="install linux-perf"):
        Recorder(99)


@pytest.fixture
def recorder():
    try:
        return Recorder(99)
    except PerfUnavailable as error:
        pytest.skip(str(error))


PERF_OF_A_TEST = """\
#!/bin/sh
case $1 in
    evlist) echo cycles ;;
    script) cat "$0.samples" ;;
esac
"""


def test_what_was_left_in_tmp_for_the_recorded_processes_is_removed(tmp_path, monkeypatch):
    perf = tmp_path / "perf"
    perf.write_text(PERF_OF_A_TEST)
    perf.chmod(0o755)
    (tmp_path / "perf.samples").write_text(SAMPLES.replace("4711\n\t7f04", "4712\n\t7f04"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    maps = tmp_path / "tmp"
    maps.mkdir()
    monkeypatch.setattr(perf_record, "_MAPS", maps)
    others = {"perf-471.map", "jit-47110.dump", "jitted-1-4711.so", "perf-4711.map.old", "4711"}
    recorded = {"perf-4711.map", "jit-4712.dump", "jitted-4712-1.so", "jitted-4712-20.so"}
    for name in others | recorded:
        (maps / name).touch()
    assert Recorder(99).read(tmp_path / "perf.data").samples == 5
    assert set(os.listdir(maps)) == others


PERF = """
    import os, pathlib, signal, sys, time
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.5)  # longer than subprocess waits for a process that is interrupted, too
    pathlib.Path(sys.argv[1]).write_text("recorded")
"""
INTERRUPTED = """
    import argparse, signal, sys
    from tokioloop.observe import profile

    class Recorder:
        def interpreter(self):
            return []
        def command(self, command, data):
            return [sys.executable, "-c", sys.argv[1], str(data)]
        def read(self, data, below):
            return data.read_text()

    options = argparse.Namespace(script=["service.py"], workload=None)
    print(profile._record(options, Recorder(), "tokioloop"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_what_was_recorded_up_to_ctrl_c_is_read():
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), textwrap.dedent(PERF)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "recorded\n", done.stderr


@pytest.mark.parametrize(
    ("workload", "text"), [("proto", "did not start"), ("tasks", "did not end")]
)
def test_a_workload_that_stands_still_is_ended_with_perf(tmp_path, monkeypatch, workload, text):
    """It has the pipe that perf has: both have to end before the pipe does."""
    monkeypatch.setattr(profile_command, "_GRACE_SECONDS", 0.1)
    recorder = types.SimpleNamespace(
        interpreter=list, command=lambda command, data: ["sh", "-c", "sleep 60; true"]
    )
    options = argparse.Namespace(workload=workload, seconds=0.1)
    with pytest.raises(profile_command.ProfileFailed, match=text):
        profile_command._record_workload(options, recorder, "tokioloop", tmp_path / "perf.data")


@pytest.fixture
def inferno():
    path = os.pathsep.join(
        [
            os.environ.get("TOKIOLOOP_TOOLS", ""),
            os.environ["PATH"],
            os.path.expanduser("~/.cargo/bin"),
        ]
    )
    if shutil.which("inferno-flamegraph", path=path) is None:
        pytest.skip("inferno is not installed")


def test_an_earlier_profile_may_be_in_the_directory_of_the_new_one(tmp_path, monkeypatch):
    """It is compared with before the new one takes its place."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in {
        "inferno-diff-folded": 'shift; for each; do echo "profile:"; cat "$each"; done',
        "inferno-flamegraph": "cat",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("TOKIOLOOP_TOOLS", str(tools))
    recorded = []
    recorder = types.SimpleNamespace(notes=["made up"], by_frame_pointers=False)
    monkeypatch.setattr(profile_command, "Recorder", lambda frequency: recorder)
    monkeypatch.setattr(profile_command, "_record", lambda *arguments: recorded.pop())
    options = argparse.Namespace(
        script=["service.py"], workload=None, loop="tokioloop", frequency=99, compare=None
    )
    options.output = tmp_path / "made"
    for function in ("before", "after"):
        sample = f"python 1\n\t7f01 {function} (/lib/libc.so.6)\n\n"
        recorded.append(stacks.parse(sample.splitlines(keepends=True)))
        assert profile_command.run(options) == 0
        options.compare = str(options.output)
    difference = (options.output / "difference.svg").read_text()
    assert difference == "profile:\nbefore 1\nprofile:\nafter 1\n"
    assert (options.output / "stacks.folded").read_text() == "after 1\n"


SERVICE = """
    import asyncio, time, tokioloop

    async def main():
        print("serving", flush=True)
        while True:
            sum(number * number for number in range(10_000))
            await asyncio.sleep(0)

    tokioloop.run(main())
"""


@pytest.mark.time_limit(120)
def test_a_service_that_ctrl_c_ends_is_profiled(tmp_path, recorder):
    """The picture needs inferno, what it is drawn from does not."""
    (tmp_path / "service.py").write_text(textwrap.dedent(SERVICE))
    command = [
        sys.executable,
        "-m",
        "tokioloop",
        "profile",
        "--frequency",
        "99",
        "--output",
        "made",
    ]
    profiling = subprocess.Popen(
        [*command, "--", "service.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,  # as the foreground job of a terminal
    )
    try:
        assert profiling.stdout.readline() == "serving\n"
        time.sleep(0.3)  # for samples
        os.killpg(profiling.pid, signal.SIGINT)
        output, errors = profiling.communicate(timeout=100)
    finally:
        profiling.kill()
        profiling.communicate()
    assert "time by layer" in output, errors
    assert (tmp_path / "made/stacks.folded").read_text()


SCRIPT = """
    import asyncio, tokioloop

    def burn_in_script():
        total = 0
        for number in range(2_000_000):
            total += number * number
        return total

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    async def main():
        burn_in_script()
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(20_000):
            writer.write(b"x" * 1000)
            await reader.readexactly(1000)
        writer.close()
        server.close()

    tokioloop.run(main())
"""


@pytest.mark.time_limit(120)
def test_a_script_becomes_a_flame_graph_with_every_layer(tmp_path, recorder, inferno):
    (tmp_path / "service.py").write_text(textwrap.dedent(SCRIPT))
    done = profile(tmp_path, "--frequency", 199, "--output", "made", "--", "service.py")
    assert done.returncode == 0, done.stderr
    folded = (tmp_path / "made/stacks.folded").read_text()
    graph = (tmp_path / "made/flamegraph.svg").read_text()
    assert "time by layer" in (tmp_path / "made/summary.txt").read_text()
    assert graph.startswith("<?xml") and "</svg>" in graph
    if recorder.sees_python:
        assert "burn_in_script (service.py)" in folded
        assert "burn_in_script (service.py)" in graph
    if _core.BUILD_PROFILE == "profiling" or not recorder.by_frame_pointers:
        assert "tokioloop_reactor::" in folded
        assert "_core::" in folded
    assert "_PyEval_EvalFrameDefault" in folded or "python" in folded

    again = profile(
        tmp_path, "--frequency", 199, "--output", "again", "--compare", "made", "--", "service.py"
    )
    assert again.returncode == 0, again.stderr
    assert "red takes more" in (tmp_path / "again/difference.svg").read_text()
