"""`python -m tokioloop top PID`: watch a loop through its console."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokioloop.observe.console import sockets_of

__all__ = ["add_arguments", "run"]

OK, UNREACHABLE, STUCK = 0, 1, 3

# A loop that is late by more than this many intervals and this many seconds is stuck.
_LATE_INTERVALS = 3
_LATE_SECONDS = 2.0


class Ended(Exception):
    """The other side has closed the console, or has gone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pid", type=int, help="the process; it must have opened its console")
    parser.add_argument("--interval", type=_seconds, default=1.0, help="seconds between updates")
    parser.add_argument("--loop", type=_index, default=0, metavar="N", help="N-th loop (from 0)")
    parser.add_argument("--json", action="store_true", help="print one snapshot as JSON and end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Attach and show; return the exit status."""
    try:
        attached = _attach(options.pid, options.loop)
    except OSError as error:
        return _say(options, UNREACHABLE, "unreachable", str(error))
    with attached:
        try:
            return _show(options, _snapshots(attached, options.interval))
        except Ended:
            state = "gone" if _process_state(options.pid) is None else "closed"
            text = {"gone": "the process has ended", "closed": "the loop has closed its console"}
            return _say(options, UNREACHABLE, state, text[state])
        except KeyboardInterrupt:
            return OK


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _index(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"loops are counted from 0, not {text}")
    return number


def _attach(pid: int, number: int) -> socket.socket:
    state = _process_state(pid)
    if state is None:
        raise ProcessLookupError(f"there is no process {pid}")
    paths = sockets_of(pid)
    if number >= len(paths):
        raise FileNotFoundError(
            f"process {pid} has {len(paths)} consoles: start it with TOKIOLOOP_CONSOLE=1, "
            "or let it call loop.start_console()"
        )
    attached = socket.socket(socket.AF_UNIX)
    try:
        attached.settimeout(_LATE_SECONDS)
        attached.connect(str(paths[number]))
    except BaseException:
        attached.close()
        raise
    return attached


def _snapshots(attached: socket.socket, interval: float) -> Iterator[dict[str, Any] | float]:
    """Yield snapshots as they come and, while the next one is late, the seconds of silence.

    Raises Ended when no more will come.
    """
    try:
        attached.sendall(json.dumps({"interval": interval}).encode() + b"\n")
    except OSError as error:
        raise Ended from error
    patience = max(_LATE_SECONDS, _LATE_INTERVALS * interval)
    attached.settimeout(0.5)
    received = b""
    heard = time.monotonic()
    while True:
        try:
            data = attached.recv(1 << 16)
        except TimeoutError:
            silence = time.monotonic() - heard
            if silence > patience:
                yield silence
            continue
        except OSError as error:
            raise Ended from error
        if not data:
            raise Ended
        heard = time.monotonic()
        *lines, received = (received + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _show(options: argparse.Namespace, snapshots: Iterator[dict[str, Any] | float]) -> int:
    previous: dict[str, Any] | None = None
    for snapshot in snapshots:
        if isinstance(snapshot, float):
            text = f"no answer for {snapshot:.1f} s; process state {_process_state(options.pid)}"
            if options.json:
                return _say(options, STUCK, "stuck", text)
            _draw([f"the loop is STUCK: {text}"] + (_view(previous, None) if previous else []))
            continue
        rates = _rates(previous, snapshot) if previous is not None else None
        if options.json:
            # The first snapshot begins the measurement, the second one has figures.
            if rates is not None:
                print(json.dumps({"state": "running", "rates": rates, **snapshot}, indent=1))
                return OK
        else:
            _draw(_view(snapshot, rates))
        previous = snapshot
    return OK


def _say(options: argparse.Namespace, status: int, state: str, text: str) -> int:
    if options.json:
        print(json.dumps({"state": state, "pid": options.pid, "message": text}))
    else:
        print(text, file=sys.stderr)
    return status


def _rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
    """Return rates per second, lag and durations for the time between two snapshots."""
    seconds = max(now["time"] - before["time"], 1e-9)
    old, new = before["metrics"], now["metrics"]
    rates = {
        name: (new[name] - old[name]) / seconds
        for name in ("turns", "callbacks", "events", "bytes_received", "bytes_sent")
    }
    rates["busy_share"] = min((new["busy_seconds"] - old["busy_seconds"]) / seconds, 1.0)
    for name in ("loop_lag_seconds", "turn_duration_seconds"):
        for quantile in (0.5, 0.99):
            key = f"{name.removesuffix('_seconds')}_p{quantile * 100:.0f}_seconds"
            rates[key] = quantile_between(old[name], new[name], quantile)
    return rates


def quantile_between(before: dict[str, Any], now: dict[str, Any], quantile: float) -> float:
    """Return the upper bound of the bucket that a quantile of the new entries is in."""
    counts = [new - old for old, new in zip(before["counts"], now["counts"], strict=True)]
    wanted = quantile * sum(counts)
    seen = 0
    for bound, count in zip([*now["bounds"], now["max"]], counts, strict=True):
        seen += count
        if count and seen >= wanted:
            return float(min(bound, now["max"]))
    return 0.0


def _view(snapshot: dict[str, Any], rates: dict[str, float] | None) -> list[str]:
    """Lay a snapshot out in lines."""
    metrics = snapshot["metrics"]
    lines = [f"tokioloop, process {snapshot['pid']}, Python {snapshot['python']}"]
    if rates is not None:
        lines += [
            f"turns {rates['turns']:,.0f}/s   callbacks {rates['callbacks']:,.0f}/s   "
            f"events {rates['events']:,.0f}/s   busy {rates['busy_share']:.0%}",
            f"lag p50 {_time(rates['loop_lag_p50_seconds'])}  "
            f"p99 {_time(rates['loop_lag_p99_seconds'])}   "
            f"turn p50 {_time(rates['turn_duration_p50_seconds'])}  "
            f"p99 {_time(rates['turn_duration_p99_seconds'])}   "
            f"in {_size(rates['bytes_received'])}/s   out {_size(rates['bytes_sent'])}/s",
        ]
    due = snapshot["next_timer_seconds"]
    lines += [
        f"connections {snapshot['connection_count']}   "
        f"accepted {metrics['connections_accepted']:,}   tasks {snapshot['task_count']}   "
        f"timers {snapshot['timer_count']}"
        + (f", next in {_time(max(due, 0.0))}" if due is not None else ""),
        "",
        f"{'callbacks by total time':<48}{'count':>10}{'total':>10}{'longest':>10}",
    ]
    lines += [
        f"{c['name'][:47]:<48}{c['count']:>10,}{_time(c['seconds']):>10}{_time(c['max']):>10}"
        for c in snapshot["callbacks"][:8]
    ]
    lines += ["", f"{'connections':<32}{'protocol':<28}{'in':>9}{'out':>9}{'queued':>9}"]
    lines += [
        f"{c['peer'][:31]:<32}{c['protocol'][-27:]:<28}{_size(c['bytes_received']):>9}"
        f"{_size(c['bytes_sent']):>9}{_size(c['bytes_queued']):>9}"
        + (" paused" if c["writing_paused"] else "")
        for c in snapshot["connections"][:8]
    ]
    lines += ["", "tasks"]
    lines += [
        f"{t['name'][:19]:<20}{t['coroutine'][-31:]:<32}{_short(t['line'])}"
        for t in snapshot["tasks"][:12]
    ]
    return lines


def _draw(lines: list[str]) -> None:
    if sys.stdout.isatty():
        size = shutil.get_terminal_size()
        shown = [line[: size.columns] for line in lines[: size.lines - 1]]
        sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(shown) + "\n")
    else:
        sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds * 1e6:.0f} us"


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _short(line: str | None) -> str:
    """Shorten a path to its last two parts, so that a line fits the screen."""
    if line is None:
        return ""
    path, _, rest = line.partition(":")
    return "/".join(Path(path).parts[-2:]) + ":" + rest


def _process_state(pid: int) -> str | None:
    """Return the kernel's word for a process' state, None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            letter = file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        if sys.platform.startswith("linux"):
            return None
        letter = "?"
    names = {"R": "running", "S": "sleeping", "D": "waiting for a disk", "T": "stopped"}
    if letter in ("Z", "X"):
        return None
    if letter == "?":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    return names.get(letter, letter)
