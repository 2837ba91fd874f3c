"""Runs CPython's own asyncio tests, as installed with this interpreter, on another event loop.

    python tests/conformance/run.py --loop tokioloop:new_event_loop --report report.json

Each test runs in a process of its own. The exit status is 0 if every test passes or stands in
`skips.toml`, and every test that stands there still cannot pass.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from harness import plan, report, session, skips

HERE = Path(__file__).resolve().parent


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Columns: 'no loop' counts tests that pass without asking for a loop; 'env' counts "
        "tests that fail on the stock loop of this machine too.",
    )
    parser.add_argument("--loop", default="tokioloop:new_event_loop", help="module:callable")
    parser.add_argument("--package", default=plan.DEFAULT_PACKAGE, help="package of the tests")
    parser.add_argument("--modules", nargs="+", help="such as test_events; all without it")
    parser.add_argument("--tests", default="*", help="substring or pattern of module.Class.method")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for each test")
    parser.add_argument("--skips", default=str(HERE / "skips.toml"), help="a file, or 'none'")
    parser.add_argument("--report", type=Path, help="where to write details as JSON")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run, print, and return the exit status."""
    arguments = parse_arguments(argv)
    entries = [] if arguments.skips == "none" else skips.load_skips(Path(arguments.skips))
    options = session.Options(
        package=arguments.package,
        modules=arguments.modules or plan.discover(arguments.package),
        loop=arguments.loop,
        pattern=arguments.tests,
        jobs=arguments.jobs,
        timeout=arguments.timeout,
    )
    skip_list = skips.SkipList(entries, skips.Interpreter.running())

    def notify(record: session.Record) -> None:
        print(report.headline(record), flush=True)

    async def run() -> session.Summary:
        return await session.Session(options, skip_list, notify).run()

    summary = asyncio.run(run())
    print(report.table(summary, arguments.loop))
    if arguments.report is not None:
        report.write_json(arguments.report, summary, arguments.loop)
    return 0 if summary.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
