"""`python -m tokioloop`: what is installed, on what, and whether it works."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import pytest

from tests.support.programs import REPOSITORY

pytestmark = pytest.mark.flavours("tokioloop", reason="the package's own command")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tokioloop", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=REPOSITORY / "tests",
    )


@pytest.fixture
def printed(flavour):
    done = command()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_it_tells_versions_and_kernel(tokioloop, printed):
    assert tokioloop.__version__ in printed
    assert platform.python_version() in printed
    assert platform.python_implementation() in printed
    assert platform.release() in printed


def test_it_tells_the_state_of_the_gil(printed):
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    (line,) = [line for line in printed.splitlines() if line.startswith("GIL")]
    assert line.split()[1] == ("on" if enabled else "off")


def test_it_tells_the_poller(printed):
    assert ("epoll" if sys.platform == "linux" else "kqueue") in printed


def test_it_checks_itself_by_an_echo(printed):
    (line,) = [line for line in printed.splitlines() if line.startswith("self-check")]
    assert line.startswith("self-check ok: a megabyte came back over loopback")


@pytest.mark.parametrize("arguments", ["", "top 1"])
def test_a_closed_output_is_no_error(flavour, arguments):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m tokioloop {arguments} >&-', sys.executable],
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        cwd=REPOSITORY / "tests",
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if arguments else 0)


def test_a_reader_that_leaves_early_is_no_error(flavour):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "tokioloop"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=20,
            cwd=REPOSITORY / "tests",
        )
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""
