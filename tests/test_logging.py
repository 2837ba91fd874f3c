"""`RUST_LOG` sends what the reactor does to Python's logging, as `tokioloop.*`."""

from __future__ import annotations

import pytest

from tests.support.programs import output_of

pytestmark = pytest.mark.flavours("tokioloop", reason="the reactor's own log")

PROGRAM = """
import logging

class Printed(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.name, bool(record.getMessage()), flush=True)

logging.getLogger().addHandler(Printed())
logging.getLogger().setLevel(logging.NOTSET)
logging.getLogger("asyncio").disabled = True

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\\n")
    assert await reader.readline() == b"line\\n"
    writer.close()
    await writer.wait_closed()
    server.close()

async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""


def records(flavour, level):
    lines = output_of(flavour, PROGRAM, {"RUST_LOG": level}).splitlines()
    return [tuple(line.split()) for line in lines]


def test_debug_gives_records_of_tokioloops_loggers(flavour):
    found = records(flavour, "debug")
    assert found
    for level, name, has_text in found:
        assert name == "tokioloop" or name.startswith("tokioloop.")
        assert level in ("DEBUG", "INFO", "WARNING")
        assert has_text == "True"


def test_nothing_is_logged_by_default(flavour):
    assert records(flavour, "") == []


def test_a_higher_level_holds_the_details_back(flavour):
    assert records(flavour, "error") == []


def test_an_unknown_level_does_not_stop_the_program(flavour):
    records(flavour, "no-such-level")


def test_a_signal_survives_a_log_handler_that_ends_the_run(flavour):
    """The poll that has found the signal is the one whose record ends the run."""
    program = """
        import logging, os, signal, threading

        class Interrupting(logging.Handler):
            def emit(self, record):
                if sent and record.getMessage().startswith("woke after"):
                    sent.clear()
                    raise KeyboardInterrupt

        logging.getLogger().addHandler(Interrupting())
        logging.getLogger().setLevel(logging.NOTSET)
        sent = []
        loop = new_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: (print("handled"), loop.stop()))

        def send():
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

        timer = threading.Timer(0.1, send)
        timer.start()
        # The other thread takes the signal, so that it does not interrupt the poll.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        timer.join()
        loop.run_forever()
        loop.close()
    """
    assert output_of(flavour, program, {"RUST_LOG": "debug"}) == "interrupted\nhandled\n"
