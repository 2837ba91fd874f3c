"""The runner's end of a fork server: starts it, sends it tests, awaits their outcomes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINE_LIMIT = 1 << 24  # bytes; a line carries the tracebacks of one test


class ModuleUnavailable(Exception):
    """The test module could not be imported; `skipped` if it skips itself on this platform."""

    def __init__(self, reason: str, skipped: bool) -> None:
        super().__init__(reason)
        self.skipped = skipped


class ServerClient:
    """One fork server with the tests of one module, on the given loop or on the stock one."""

    def __init__(self, module: str, loop: str | None) -> None:
        self._module = module
        self._loop = loop
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pending: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def start(self) -> list[str]:
        """Import the module in the server; the names of its tests."""
        command = [sys.executable, "-m", "harness.fork_server", self._module]
        if self._loop is not None:
            command += ["--loop", self._loop]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            cwd=tempfile.gettempdir(),
            limit=LINE_LIMIT,
        )
        assert self._process.stdout is not None
        greeting = await self._process.stdout.readline()
        if not greeting:
            await self.close()
            raise ModuleUnavailable(f"the server of {self._module} died at its start", False)
        message = json.loads(greeting)
        if "tests" not in message:
            await self.close()
            skipped = "skipped" in message
            raise ModuleUnavailable(message["skipped" if skipped else "error"], skipped)
        self._reader = asyncio.create_task(self._deliver(self._process.stdout))
        tests: list[str] = message["tests"]
        return tests

    async def run(self, test: str, timeout: float) -> dict[str, Any]:
        """Run one test in a child of its own and return how it ended."""
        assert self._process is not None and self._process.stdin is not None
        assert self._reader is not None
        if self._reader.done():
            return _lost(test)
        reply = asyncio.get_running_loop().create_future()
        self._pending[test] = reply
        self._process.stdin.write(json.dumps({"test": test, "timeout": timeout}).encode() + b"\n")
        result: dict[str, Any] = await reply
        return result

    async def close(self) -> None:
        """End the server and whatever it still runs."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _deliver(self, replies: asyncio.StreamReader) -> None:
        while line := await replies.readline():
            result = json.loads(line)
            self._pending.pop(result["test"]).set_result(result)
        for test, reply in self._pending.items():
            reply.set_result(_lost(test))
        self._pending.clear()


def _environment() -> dict[str, str]:
    """Ours, with the harness importable and relative entries of PYTHONPATH made absolute."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = [str(ROOT), *(os.path.abspath(entry) for entry in inherited if entry)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _lost(test: str) -> dict[str, Any]:
    return {
        "test": test,
        "outcome": "lost",
        "detail": "the fork server of the module died",
        "seconds": 0.0,
        "loops": 0,
    }
