"""The command line: `python -m tokioloop`."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys

from tokioloop.observe import profile, self_check, top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tokioloop",
        description="Say what this installation is and check that it works, or look at a loop.",
    )
    parser.set_defaults(run=check)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    top.add_arguments(commands.add_parser("top", help="watch the loop of a running process"))
    profile.add_arguments(
        commands.add_parser("profile", help="draw a flame graph of a script or a workload")
    )
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def check(options: argparse.Namespace) -> int:
    """Print versions and platform, and echo a megabyte over loopback."""
    for name, value in self_check.describe().items():
        print(f"{name:<11}{value}")
    try:
        seconds = self_check.self_check()
    except Exception as error:
        print(f"self-check failed: {type(error).__name__}: {error}")
        return 1
    print(f"self-check ok: a megabyte came back over loopback in {seconds * 1000:.1f} ms")
    return 0


def main_with_output() -> int:
    """Run `main` with an output that is closed, or whose reader may leave early, as `head` does."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        output = select.poll()
        # macOS reports the end only if some event was asked for.
        output.register(sys.stdout, select.POLLOUT)
        ended = select.POLLERR | select.POLLHUP | select.POLLNVAL
        if not any(events & ended for _, events in output.poll(0)):
            raise  # It was another pipe.
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main_with_output())
