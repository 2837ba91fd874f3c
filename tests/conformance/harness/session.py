"""A run: every selected test once, then a second look at what failed.

A failure is looked at again when nothing else runs: on the stock loop (a test that fails there too
tells of the machine, not of the loop) and, if it had failed rather than hung or crashed, once more
on the loop under test.
"""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .server_client import ModuleUnavailable, ServerClient
from .skips import Skip, SkipList
from .verdicts import Record, Verdict, judge, judge_listed

ENVIRONMENT_LIMIT = 0.1  # share of tests that may fail on the stock loop before nothing is proved
SERVERS_PER_JOB = 2  # so that a module's last slow test does not leave the other job idle


@dataclass(frozen=True)
class Options:
    """What to run and how."""

    package: str
    modules: list[str]
    loop: str
    pattern: str = "*"
    jobs: int = 2
    timeout: float = 30.0


@dataclass
class Summary:
    """Everything that a report needs of a finished run."""

    modules: list[str]
    records: list[Record] = field(default_factory=list)
    stale: list[Skip] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing failed, the list of skips is exact and the machine fit for the tests."""
        bad = any(record.verdict.is_bad for record in self.records)
        return not (bad or self.stale or self.environment_is_broken)

    @property
    def environment_is_broken(self) -> bool:
        """Whether so much fails on the stock loop that the rest proves little."""
        failing = sum(record.verdict is Verdict.ENVIRONMENT for record in self.records)
        return failing > max(1, ENVIRONMENT_LIMIT * len(self.records))


class Session:
    """Runs the modules of `options`, reporting each bad record through `notify` as it is known."""

    def __init__(self, options: Options, skips: SkipList, notify: Callable[[Record], None]) -> None:
        self._options = options
        self._skips = skips
        self._notify = notify
        self._summary = Summary(options.modules)
        self._job_slots = asyncio.Semaphore(options.jobs)
        self._server_slots = asyncio.Semaphore(options.jobs * SERVERS_PER_JOB)

    async def run(self) -> Summary:
        """Run everything."""
        started = time.monotonic()
        await asyncio.gather(*(self._run_module(name) for name in self._options.modules))
        await self._look_again()
        self._summary.records.sort(key=lambda record: record.test)
        if self._options.pattern == "*":
            self._summary.stale = self._skips.unmatched(self._options.modules)
        self._summary.seconds = time.monotonic() - started
        return self._summary

    async def _run_module(self, module: str) -> None:
        async with self._server_slots:
            server = ServerClient(f"{self._options.package}.{module}", self._options.loop)
            try:
                tests = await server.start()
            except ModuleUnavailable as problem:
                self._note_unavailable(module, problem)
                return
            try:
                selected = [name for name in tests if self._is_selected(name)]
                await asyncio.gather(*(self._run_test(server, test) for test in selected))
            finally:
                await server.close()

    def _is_selected(self, test: str) -> bool:
        pattern = self._options.pattern
        return pattern in test or fnmatch.fnmatchcase(test, pattern)

    def _note_unavailable(self, module: str, problem: ModuleUnavailable) -> None:
        if problem.skipped:
            self._summary.unavailable[module] = str(problem)
        else:
            self._add(Record(f"{module}.<import>", Verdict.FAILED, detail=str(problem)))

    async def _run_test(self, server: ServerClient, test: str) -> None:
        skip = self._skips.find(test)
        if skip is not None and not skip.run:
            self._add(Record(test, Verdict.SKIPPED, detail=skip.reason))
            return
        async with self._job_slots:
            result = await server.run(test, self._options.timeout)
        record = Record(test, judge(result), result["seconds"], result["detail"])
        if skip is not None:
            record.verdict = judge_listed(result)
            if record.verdict is Verdict.SKIPPED:
                record.detail = skip.reason
        self._add(record)

    def _add(self, record: Record) -> None:
        self._summary.records.append(record)
        if record.verdict.is_bad:
            self._notify(record)

    async def _look_again(self) -> None:
        suspects: dict[str, list[Record]] = {}
        for record in self._summary.records:
            if record.verdict in (Verdict.FAILED, Verdict.HANG, Verdict.CRASH):
                suspects.setdefault(record.module, []).append(record)
        for module, records in suspects.items():
            await self._look_again_at(module, records)

    async def _look_again_at(self, module: str, records: list[Record]) -> None:
        dotted = f"{self._options.package}.{module}"
        stock, ours = ServerClient(dotted, None), ServerClient(dotted, self._options.loop)
        try:
            known = set(await stock.start())
            await ours.start()
            for record in records:
                if record.test in known:
                    await self._second_look(record, stock, ours)
        except ModuleUnavailable:
            return  # an import that fails is already a failed record
        finally:
            await stock.close()
            await ours.close()

    async def _second_look(self, record: Record, stock: ServerClient, ours: ServerClient) -> None:
        timeout = self._options.timeout
        control = await stock.run(record.test, timeout)
        if control["outcome"] in ("failed", "hang", "crash"):
            record.verdict = Verdict.ENVIRONMENT
            record.detail += (
                f"\n--- on the stock loop: {control['outcome']} ---\n{control['detail']}"
            )
            return
        if record.verdict is Verdict.FAILED:
            again = await ours.run(record.test, timeout)
            if again["outcome"] == "passed":
                record.verdict = Verdict.FLAKY
