"""`python -m tokioloop profile`: a flame graph of a script or a workload.

`perf` records, `inferno` draws; what they make is put into one directory:
`flamegraph.svg`, `summary.txt`, and `stacks.folded`, which a later run compares
itself with.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tokioloop import _core
from tokioloop.observe import stacks, workloads
from tokioloop.observe.perf_record import PerfUnavailable, Recorder

__all__ = ["add_arguments", "run"]

_TOOLS_VARIABLE = "TOKIOLOOP_TOOLS"
_HOW_TO_INSTALL = (
    "the flame graph needs inferno: run `cargo install inferno`, or name the directory of its "
    f"programs in {_TOOLS_VARIABLE}"
)
# Percent of the width below which a frame is not drawn: nobody sees it, and files stay small.
_NARROWEST = 0.1
# How long to wait for a workload that does not start, or end, by itself.
_GRACE_SECONDS = 30.0


class ProfileFailed(Exception):
    """What went wrong, for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--workload", choices=sorted(workloads.WORKLOADS), help="profile a built-in workload"
    )
    parser.add_argument("--loop", default="tokioloop", choices=sorted(workloads.LOOPS))
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a workload runs")
    parser.add_argument("--frequency", type=int, default=499, help="samples a second")
    parser.add_argument(
        "--output", type=Path, default=Path("tokioloop-profile"), metavar="DIRECTORY"
    )
    parser.add_argument(
        "--compare",
        metavar="BASELINE",
        help="the directory of an earlier profile, or with --workload another loop's name: "
        "draw what is more (red) and less (blue) than there",
    )
    parser.add_argument("script", nargs="*", help="after --: a script and its arguments")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record, draw, sum up; return the exit status."""
    try:
        _check(options)
        recorder = Recorder(options.frequency)
        notes = [*recorder.notes, *_build_notes(recorder)]
        # Made before the recording, which would be lost if this failed.
        options.output.mkdir(parents=True, exist_ok=True)
        profile = _record(options, recorder, options.loop)
        # Read before anything is written: the earlier profile may be in the same directory.
        baseline = _baseline(options, recorder)
        _write(options.output, profile, notes)
        if baseline is not None:
            _write_difference(options, baseline)
    except (PerfUnavailable, ProfileFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _check(options: argparse.Namespace) -> None:
    if bool(options.script) == bool(options.workload):
        raise ProfileFailed("name either a script, after --, or a --workload")
    if options.compare in workloads.LOOPS and not options.workload:
        raise ProfileFailed("a script chooses its loop itself: compare with an earlier profile")
    if options.compare is not None and options.compare not in workloads.LOOPS:
        _earlier_stacks(options.compare)


def _build_notes(recorder: Recorder) -> list[str]:
    if _core.BUILD_PROFILE == "profiling" or not recorder.by_frame_pointers:
        return []
    return [
        f"tokioloop is a {_core.BUILD_PROFILE} build, without frame pointers: its own callers are "
        "missing from stacks; `make profiling` builds one that has them"
    ]


def _record(options: argparse.Namespace, recorder: Recorder, loop: str) -> stacks.Profile:
    # perf's data; what the interpreter itself writes for perf is in /tmp, and removed by read().
    with tempfile.TemporaryDirectory(prefix="tokioloop-profile-") as directory:
        data = Path(directory) / "perf.data"
        if options.workload:
            _record_workload(options, recorder, loop, data)
        else:
            command = [*recorder.interpreter(), *options.script]
            with _interrupts_are_for_the_script():
                status = subprocess.run(recorder.command(command, data)).returncode
            if status != 0:
                print(f"{options.script[0]} ended with status {status}", file=sys.stderr)
        if not data.exists():
            raise ProfileFailed("perf has recorded nothing")
        return recorder.read(data, workloads.run_profiled.__name__ if options.workload else None)


@contextlib.contextmanager
def _interrupts_are_for_the_script() -> Iterator[None]:
    """Keep waiting when Ctrl-C ends the script, which is how a service is ended.

    The script gets the signal, and so does perf, which then writes what it has recorded.
    """
    before = signal.getsignal(signal.SIGINT)
    if callable(before):
        signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _record_workload(
    options: argparse.Namespace, recorder: Recorder, loop: str, data: Path
) -> None:
    command = [*recorder.interpreter(), "-m", "tokioloop.observe.workloads", options.workload]
    command += ["--loop", loop, "--seconds", str(options.seconds)]
    process = subprocess.Popen(
        recorder.command(command, data),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        start_new_session=True,  # perf and the workload that it starts can be ended together
    )
    try:
        if workloads.WORKLOADS[options.workload][1]:
            port = _first_line(process)
            if not port:
                raise ProfileFailed(f"the workload did not start on {loop}")
            messages = workloads.drive(int(port), options.seconds)
            print(f"{loop}: {messages} messages in {options.seconds:g} s while profiled")
        process.communicate(timeout=options.seconds + _GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise ProfileFailed(f"the workload did not end on {loop}") from None
    finally:
        if process.returncode is None:
            # Both are killed, since the workload has the pipe as well and would keep it open.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise ProfileFailed(f"the workload failed on {loop} with status {process.returncode}")


def _first_line(process: subprocess.Popen[str]) -> str:
    """Return the line that a workload prints when it has started; empty if it does not start."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _GRACE_SECONDS)[0]:
        return ""
    return process.stdout.readline().strip()


def _baseline(options: argparse.Namespace, recorder: Recorder) -> str | None:
    """Return the folded stacks to compare with, recorded now if another loop is named."""
    if options.compare is None:
        return None
    if options.compare in workloads.LOOPS:
        profile = _record(options, recorder, options.compare)
        directory = options.output / options.compare
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory, profile, recorder.notes)
        return _folded(profile)
    return _earlier_stacks(options.compare).read_text()


def _earlier_stacks(name: str) -> Path:
    path = Path(name)
    path = path / "stacks.folded" if path.is_dir() else path
    if not path.is_file():
        raise ProfileFailed(f"there is no earlier profile at {name}")
    return path


def _write(directory: Path, profile: stacks.Profile, notes: list[str]) -> None:
    folded = _folded(profile)
    (directory / "stacks.folded").write_text(folded)
    summary = profile.summary() + "".join(f"\nnote: {note}" for note in notes) + "\n"
    (directory / "summary.txt").write_text(summary)
    print(summary)
    graph = _draw(folded, "--colors=java", "--title=tokioloop")
    (directory / "flamegraph.svg").write_text(graph)
    print(f"flame graph: {directory / 'flamegraph.svg'}")


def _folded(profile: stacks.Profile) -> str:
    return "".join(f"{line}\n" for line in profile.folded_lines())


def _write_difference(options: argparse.Namespace, baseline: str) -> None:
    mine = options.output / "stacks.folded"
    with tempfile.TemporaryDirectory(prefix="tokioloop-profile-") as directory:
        theirs = Path(directory) / "stacks.folded"
        theirs.write_text(baseline)
        # Two runs have different numbers of samples: shares are compared, not counts.
        difference = _inferno("inferno-diff-folded", "--normalize", str(theirs), str(mine))
    title = f"tokioloop against {options.compare}: red takes more, blue less"
    graph = _draw(difference, f"--title={title}")
    (options.output / "difference.svg").write_text(graph)
    print(f"difference:  {options.output / 'difference.svg'}")


def _draw(folded: str, *options: str) -> str:
    return _inferno("inferno-flamegraph", f"--minwidth={_NARROWEST}", *options, text=folded)


def _inferno(program: str, *arguments: str, text: str = "") -> str:
    search = os.pathsep.join(
        filter(
            None,
            (
                os.environ.get(_TOOLS_VARIABLE),
                os.environ.get("PATH"),
                str(Path.home() / ".cargo" / "bin"),
            ),
        )
    )
    path = shutil.which(program, path=search)
    if path is None:
        raise ProfileFailed(f"the folded stacks and the summary are written, but {_HOW_TO_INSTALL}")
    done = subprocess.run([path, *arguments], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise ProfileFailed(f"{program} failed: {done.stderr.strip()}")
    return done.stdout
