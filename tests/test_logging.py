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
