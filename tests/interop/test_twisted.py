"""Twisted on asyncioreactor: all its kinds of descriptor, driven by the loop's watchers alone."""

from __future__ import annotations

import json

import pytest
from interop_support.processes import python, run_program

pytest.importorskip("twisted.internet", exc_type=ImportError)

CHECKS = [
    "tcp_echo",
    "unix_echo",
    "tls_echo",
    "udp_echo",
    "http_server_and_agent",
    "child_process",
    "worker_threads",
    "delayed_calls",
    "asyncio_in_the_same_loop",
    "regular_file_as_descriptor",
]


@pytest.fixture(scope="module")
def results(certificates) -> dict[str, str]:
    """One run of the program; a process has one reactor and can start it once."""
    pytest.importorskip("OpenSSL", exc_type=ImportError)
    output = run_program(
        python("-m", "interop_support.twisted_program"),
        env={"INTEROP_TLS_DIRECTORY": str(certificates.authority.parent)},
        timeout=25,
    )
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_works_on_the_loop_under_test(results, check) -> None:
    assert results[check] == "ok", results[check]


def test_every_check_of_the_program_is_listed(results) -> None:
    assert sorted(results) == sorted(CHECKS)
