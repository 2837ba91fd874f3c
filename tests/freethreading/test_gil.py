"""Importing tokioloop leaves the GIL as it is: off, on an interpreter that can be without."""

from __future__ import annotations

import sysconfig

import pytest

from tests.support.flavours import FLAVOURS
from tests.support.programs import output_of

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter always has a GIL"
)

PROGRAM = """
import asyncio, sys, warnings
warnings.simplefilter("error")  # an extension that wants the GIL back is announced by a warning
import tokioloop
assert not sys._is_gil_enabled(), "importing tokioloop has turned the GIL on"

async def main():
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.close()
    await writer.wait_closed()

loop = tokioloop.new_event_loop()
server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
loop.run_until_complete(main())
server.close()
loop.run_until_complete(server.wait_closed())
loop.close()
assert not sys._is_gil_enabled(), "running a loop has turned the GIL on"
"""


def test_importing_and_running_leaves_the_gil_off() -> None:
    # An empty variable leaves the decision to the interpreter and its modules.
    output_of(FLAVOURS["tokioloop"], PROGRAM, env={"PYTHON_GIL": ""})
