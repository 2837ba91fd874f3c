"""A stream of asyncio's factories does without the interpreter, on every build of it."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

import tokioloop

from tests.streams.support import accepted


def test_a_message_runs_no_code_of_asyncios_streams() -> None:
    frames: list[str] = []

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == asyncio.streams.__file__:
            frames.append(frame.f_code.co_name)

    async def main() -> None:
        async with accepted() as (reader, writer, peer):
            sys.setprofile(profile)
            try:
                for _ in range(3):
                    asyncio.get_running_loop().call_soon(peer.sendall, b"line\n")
                    writer.write(await reader.readline())
                    await writer.drain()
            finally:
                sys.setprofile(None)

    loop = tokioloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert frames == []


def test_a_servers_streams_have_a_slot_for_their_state() -> None:
    """They are made natively, and not asyncio's own ones turned into something else."""

    async def main() -> None:
        async with accepted() as (reader, writer, _peer):
            assert type(reader).__basicsize__ > asyncio.StreamReader.__basicsize__
            assert type(writer).__basicsize__ > asyncio.StreamWriter.__basicsize__

    loop = tokioloop.new_event_loop()
    loop.set_debug(False)  # in debug mode a reader has its traceback as well, and stays
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
