"""A process that has imported one test module and forks a child for every test it is told to run.

Speaks JSON lines. On start it prints `{"tests": [...]}` (or `{"error": ...}`, `{"skipped": ...}`);
then for each `{"test": id, "timeout": seconds}` on its input it prints, in the order in which the
tests end, `{"test": id, "outcome": ..., "detail": ..., "seconds": ..., "loops": ...}`.
It is single-threaded, as a process that forks must be, and owns every child until it is reaped.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gc
import importlib
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from .injection import LoopSource, inject, load_source
from .plan import plan_for
from .single_test import run_single

ABORT_GRACE = 2.0  # seconds that a hanging child has to print its stacks after SIGABRT
OUTPUT_KEPT = 8000  # characters of a child's output that a report keeps
POLL_WITHOUT_PIDFD = 0.02  # seconds between looks at children where pidfds do not exist


class Child:
    """One forked test: its process, the directory it runs in, and when its time is up."""

    def __init__(self, test: str, timeout: float, body: Callable[[Path], NoReturn]) -> None:
        self.test = test
        self.directory = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.timed_out = False
        self.pid = os.fork()
        if self.pid == 0:
            body(self.directory)
        self.pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    def has_ended(self) -> int | None:
        """The wait status if the process has ended; reaps it."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def enforce_deadline(self, now: float) -> None:
        """Ask a late child for its stacks, then end it."""
        if now < self.deadline:
            return
        if self.timed_out:
            os.killpg(self.pid, signal.SIGKILL)
        else:
            self.timed_out = True
            os.kill(self.pid, signal.SIGABRT)
        self.deadline = now + ABORT_GRACE

    def finish(self, status: int) -> dict[str, Any]:
        """Clean up after the ended child and say how its test ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what the test left behind
        if self.pidfd is not None:
            os.close(self.pidfd)
        output = (self.directory / "output").read_text(errors="replace")[-OUTPUT_KEPT:]
        result_file = self.directory / "result"
        if self.timed_out:
            result: dict[str, Any] = {"outcome": "hang", "detail": output}
        elif result_file.exists():
            result = json.loads(result_file.read_text())
            if result["outcome"] == "failed" and output:
                result["detail"] += f"\n--- output ---\n{output}"
        else:
            code = os.waitstatus_to_exitcode(status)
            end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            result = {"outcome": "crash", "detail": f"{end}\n{output}"}
        shutil.rmtree(self.directory, ignore_errors=True)
        result.setdefault("seconds", round(time.monotonic() - self.started, 3))
        result.setdefault("loops", 0)
        return {"test": self.test, **result}


def _child_main(case: unittest.TestCase, source: LoopSource | None, directory: Path) -> NoReturn:
    """Everything that happens in the forked child; never returns to the server's code."""
    status = 1
    own_pid = os.getpid()
    try:
        _isolate(directory)
        result = run_single(case, source)
        if os.getpid() == own_pid:  # not in a process that the test forked and let return
            partial = directory / "result.partial"
            partial.write_text(json.dumps(result))
            partial.rename(directory / "result")
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _isolate(directory: Path) -> None:
    """Give the child its own session, directory, output and the signal state of a fresh start."""
    os.setsid()
    scratch = directory / "cwd"
    scratch.mkdir()
    os.chdir(scratch)
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(directory / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A shell that starts the run in the background leaves SIGINT ignored; the tests count on it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(2)


class ForkServer:
    """Reads requests, forks children, reports their ends."""

    def __init__(self, source: LoopSource | None, request_fd: int, reply_fd: int) -> None:
        self._cases: dict[str, unittest.TestCase] = {}
        self._source = source
        self._request_fd = request_fd
        self._reply_fd = reply_fd
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._partial_line = b""

    def serve(self, cases: dict[str, unittest.TestCase]) -> None:
        """Announce the tests and run them on request; when requests end, end what still runs."""
        self._cases = cases
        self.reply({"tests": list(cases)})
        self._selector.register(self._request_fd, selectors.EVENT_READ)
        open_for_requests = True
        while open_for_requests or self._children:
            for key, _ in self._selector.select(self._wait_limit()):
                if key.fd == self._request_fd and not self._read_requests():
                    open_for_requests = False
                    self._selector.unregister(self._request_fd)
                    for child in self._children.values():
                        os.killpg(child.pid, signal.SIGKILL)
            self._look_after_children()

    def reply(self, message: dict[str, Any]) -> None:
        """Send one line."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._reply_fd, data) :]

    def _wait_limit(self) -> float | None:
        if not self._children:
            return None
        if any(child.pidfd is None for child in self._children.values()):
            return POLL_WITHOUT_PIDFD
        earliest = min(child.deadline for child in self._children.values())
        return max(0.0, earliest - time.monotonic())

    def _read_requests(self) -> bool:
        data = os.read(self._request_fd, 65536)
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            body = functools.partial(self._in_child, self._cases[request["test"]])
            child = Child(request["test"], request["timeout"], body)
            self._children[child.pid] = child
            if child.pidfd is not None:
                self._selector.register(child.pidfd, selectors.EVENT_READ)
        return bool(data)

    def _in_child(self, case: unittest.TestCase, directory: Path) -> NoReturn:
        self._selector.close()
        for child in self._children.values():
            if child.pidfd is not None:
                os.close(child.pidfd)
        os.close(self._request_fd)
        os.close(self._reply_fd)
        _child_main(case, self._source, directory)

    def _look_after_children(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            status = child.has_ended()
            if status is None:
                child.enforce_deadline(now)
                continue
            del self._children[child.pid]
            if child.pidfd is not None:
                self._selector.unregister(child.pidfd)
            self.reply(child.finish(status))


def collect(module_name: str) -> dict[str, unittest.TestCase]:
    """Import a test module; its tests by `module.Class.method`."""
    module = importlib.import_module(module_name)
    short = module_name.rpartition(".")[2]
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    return {
        f"{short}.{type(case).__qualname__}.{case._testMethodName}": case
        for case in _flatten(suite)
    }


def _flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for member in suite:
        if isinstance(member, unittest.TestSuite):
            yield from _flatten(member)
        else:
            yield member


def main() -> None:
    """Serve one module on standard input and output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module", help="dotted name of the test module")
    parser.add_argument("--loop", help="module:callable; the stock loop without it")
    arguments = parser.parse_args()

    # The protocol keeps the original output; whatever a module prints at import goes to stderr.
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    source = load_source(arguments.loop) if arguments.loop else None
    server = ForkServer(source, requests, replies)
    try:
        if source is not None:
            inject(source, plan_for(arguments.module.rpartition(".")[2]))
        cases = collect(arguments.module)
    except unittest.SkipTest as skip:
        server.reply({"skipped": str(skip)})
        return
    except Exception:
        server.reply({"error": traceback.format_exc()})
        return
    gc.collect()
    gc.freeze()  # a child's collections need not walk what it shares with the server
    server.serve(cases)


if __name__ == "__main__":
    main()
