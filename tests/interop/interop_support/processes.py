"""Start, await and end the real programs that the tests talk to.

A process is always ended by the id of the group it was started in, never by its name. It also
dies with the test run (`setpriv --pdeathsig`, where that exists), so that an interrupted run
leaves no server behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

START_TIMEOUT = 20.0  # seconds; a cold start of PostgreSQL on a loaded machine takes about five
STOP_TIMEOUT = 8.0
_POLL_INTERVAL = 0.02
_LOG_TAIL = 4000  # characters of a log that a failure shows

SUPPORT_PATH = Path(__file__).resolve().parent.parent


def find_program(name: str, *, package: str, directories: Sequence[Path] = ()) -> str:
    """The path of a program, or a skip that names the Debian package to install."""
    path = shutil.which(name, path=os.pathsep.join([*map(str, directories), os.defpath]))
    path = path or shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; a caller must be ready to lose it and retry."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the support package importable."""
    paths = [str(SUPPORT_PATH), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


class ServerProcess:
    """One started program, its log file and the promise to end it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*_die_with_parent(user), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(env),
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        return self._popen.wait(timeout)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], *, timeout: float = START_TIMEOUT) -> None:
        """Return when `ready` says so; after an early exit or too long a wait, stop and raise."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running():
                self.stop()
                raise RuntimeError(self._report(f"ended early with {self._popen.returncode}"))
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(self._report(f"was not ready within {timeout:.0f} s"))
            time.sleep(_POLL_INTERVAL)

    def stop(self) -> None:
        """End the program politely, then end whatever is left of its process group."""
        if self.running():
            self._popen.send_signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(STOP_TIMEOUT)

    def _report(self, what: str) -> str:
        return f"{self.argv[0]} {what}; its log ends:\n{self.output()[-_LOG_TAIL:]}"


def retry_if_port_taken(start: Callable[[], T]) -> T:
    """Start a server on ports picked beforehand, again if another program took one meanwhile."""
    for _ in range(2):
        try:
            return start()
        except RuntimeError as error:
            if "in use" not in str(error).lower():
                raise
    return start()


def accepts_connections(address: tuple[str, int] | Path | str) -> bool:
    """Whether something listens there and accepts."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with closing(socket.socket(family)) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(address if isinstance(address, tuple) else str(address)) == 0


def run_program(
    argv: Sequence[str],
    *,
    timeout: float = 25.0,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> str:
    """Run a short-lived program to its end and return its output; a failure shows all of it."""
    result = subprocess.run(
        [*_die_with_parent(user), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(env),
        cwd="/",
        timeout=timeout,
        text=True,
    )
    if result.returncode != 0:
        raise AssertionError(f"{argv} ended with {result.returncode}:\n{result.stdout}")
    return result.stdout


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _die_with_parent(user: str | None) -> list[str]:
    setpriv = shutil.which("setpriv")
    if user is not None and setpriv is None:
        pytest.skip("setpriv is not installed (Debian package util-linux)")
    if setpriv is None:
        return []
    switch = [] if user is None else ["--reuid", user, "--regid", user, "--init-groups"]
    return [setpriv, *switch, "--pdeathsig", "KILL", "--"]
