"""Fixtures of the interop tests: the loop under test and the real servers it is tried against.

Servers are started once per session on loopback, on ephemeral ports and with data in a temporary
directory; each is ended by its id when the session ends. Where a program or a package is missing,
the tests that need it skip and name what to install.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from interop_support import asgi_servers, loops, postgres, redis_server
from interop_support.certificates import Certificates, make_certificates
from interop_support.descriptors import open_descriptors, require_no_new_descriptors

T = TypeVar("T")

TEST_TIME_LIMIT = 30  # seconds; a hang, not slowness: `run` gives up well before


class Run(Protocol):
    def __call__(
        self,
        main: Callable[[], Awaitable[T]],
        *,
        timeout: float = ...,
        known_report: str | None = ...,
        keeps_open: bool = ...,
    ) -> T: ...


@pytest.fixture(scope="session", autouse=True)
def loop_class_name() -> str:
    """The class under test; where its factory cannot be imported every test fails, none skips."""
    return loops.expected_class_name()


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Fail a test that hangs outside the loop's own timers, and keep the session going."""

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"still running after {TEST_TIME_LIMIT} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_TIME_LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def run() -> Run:
    """`run(main)`: a coroutine function on a fresh loop under test, which must leave nothing open.

    `keeps_open` says that the library itself keeps descriptors beyond the loop's life.
    """

    def run_and_check(
        main: Callable[[], Awaitable[T]],
        *,
        timeout: float = 8.0,
        known_report: str | None = None,
        keeps_open: bool = False,
    ) -> T:
        before = open_descriptors()
        result = loops.run(main, timeout=timeout, known_report=known_report)
        if not keeps_open:
            require_no_new_descriptors(before)
        return result

    return run_and_check


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A directory with a short path, as Unix socket names need, that other users may enter."""
    directory = Path(tempfile.mkdtemp(prefix="interop-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(workspace: Path) -> Certificates:
    directory = workspace / "tls"
    directory.mkdir()
    return make_certificates(directory)


@pytest.fixture(scope="session")
def postgres_server(workspace: Path, certificates: Certificates) -> Iterator[postgres.Postgres]:
    directory = workspace / "postgres"
    directory.mkdir()
    server = postgres.start_postgres(directory, certificates)
    yield server
    server.process.stop()


@pytest.fixture(scope="session")
def redis(workspace: Path, certificates: Certificates) -> Iterator[redis_server.RedisServer]:
    server = redis_server.start_redis(workspace, certificates)
    yield server
    server.process.stop()


@pytest.fixture(scope="session")
def uvicorn_tls(workspace: Path, certificates: Certificates) -> Iterator[asgi_servers.HttpServer]:
    server = asgi_servers.start_uvicorn(workspace, tls=certificates)
    yield server
    server.process.stop()


@pytest.fixture(scope="session")
def nginx(workspace: Path, certificates: Certificates) -> Iterator[asgi_servers.Nginx]:
    upstream = asgi_servers.start_uvicorn_on_unix_socket(workspace)
    try:
        server = asgi_servers.start_nginx(workspace / "nginx", certificates, upstream)
        yield server
        server.process.stop()
    finally:
        upstream.process.stop()


def pytest_report_header() -> str:
    return f"loop under test: {loops.factory_path()}"
