"""aiohttp's pytest plugins with the loop injected, each in a pytest run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop_support.processes import python, run_program

pytest.importorskip("aiohttp", exc_type=ImportError)

SUITE = Path(__file__).with_name("plugin_suites") / "aiohttp_suite.py"
SUITE_SIZE = 4


def run_suite(*arguments: str) -> None:
    """Run the suite with nothing of this run's configuration; every test of it must pass."""
    output = run_program(
        python(
            "-m", "pytest", "-q", "--noconftest", "-c", "/dev/null", "-p", "no:cacheprovider",
            "--rootdir", str(SUITE.parent), *arguments, str(SUITE),
        ),
    )  # fmt: skip
    assert f"{SUITE_SIZE} passed" in output, output


def test_aiohttps_own_plugin() -> None:
    pytest.importorskip("aiohttp.pytest_plugin", exc_type=ImportError)
    run_suite(
        "-p", "no:asyncio", "-p", "no:aiohttp", "-p", "no:anyio",
        "-p", "aiohttp.pytest_plugin", "-p", "plugin_suites.with_aiohttp_plugin",
    )  # fmt: skip


def test_pytest_aiohttp_on_pytest_asyncio() -> None:
    pytest.importorskip("pytest_aiohttp", exc_type=ImportError)
    specifications = pytest.importorskip("pytest_asyncio.plugin", exc_type=ImportError)
    if not hasattr(specifications.PytestAsyncioSpecs, "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no hook for loop factories (1.4 has)")
    run_suite("--asyncio-mode=auto", "-p", "plugin_suites.with_pytest_asyncio")
