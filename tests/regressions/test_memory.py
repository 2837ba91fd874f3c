"""What is queued, what has failed and what has gone costs no more memory than it must."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import sysconfig
from typing import Any

import pytest

from tests.support.leaks import (
    children_of_this_process,
    leaked_descriptors,
    open_descriptors,
)
from tests.support.net import connected, eventually, receive_exactly, reset, settled

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc"),
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have the defects"),
]
Loop = asyncio.AbstractEventLoop

MEGABYTE = 1 << 20
QUEUED = 128 * MEGABYTE
# glibc gives blocks of this size back to the system as soon as they are free.
BLOCK = 40 * MEGABYTE
# What buffers, free lists and the allocator may take for themselves.
SLACK = 24 * MEGABYTE
FAILED_EXECS = 4_000
FAILED_LOOKUPS = 1_000


def resident() -> int:
    """The bytes of memory that this process really has."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.flavours("tokioloop", reason="asyncio up to 3.11 copies what it queues")
@pytest.mark.parametrize("how", ["write", "writelines", "stream"])
def test_what_a_slow_reader_leaves_is_kept_by_one_reference(loop: Loop, how: str) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _, peer):
            data = b"\xa5" * QUEUED
            references, before = sys.getrefcount(data), resident()
            writer = asyncio.StreamWriter(transport, asyncio.Protocol(), None, loop)
            if how == "write":
                transport.write(data)
            elif how == "writelines":
                transport.writelines([data])
            else:
                writer.write(data)
            await settled()
            assert transport.get_write_buffer_size() > QUEUED - SLACK
            assert sys.getrefcount(data) == references + 1
            # A reader that takes a little now and then makes no copy either.
            for _ in range(20):
                receive_exactly(peer, MEGABYTE)
                await settled()
            assert sys.getrefcount(data) == references + 1
            assert resident() - before < SLACK
            transport.abort()
            await settled()
            assert sys.getrefcount(data) == references

    loop.run_until_complete(main())


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="mimalloc returns memory when it likes",
)
def test_memory_returns_when_the_peer_of_a_long_queue_dies(loop: Loop) -> None:
    async def main() -> None:
        before = resident()
        async with connected("client") as (transport, protocol, peer):
            for number in range(QUEUED // BLOCK):
                transport.write(bytes([number + 1]) * BLOCK)
            assert resident() - before > QUEUED - BLOCK - SLACK
            reset(peer)
            await protocol.until_lost()
            assert isinstance(protocol.lost_with, ConnectionError)
            assert transport.get_write_buffer_size() == 0
            gc.collect()
            # The transport and its protocol are still here.
            assert resident() - before < SLACK

    loop.run_until_complete(main())


def test_programs_that_cannot_start_leave_nothing_however_many(loop: Loop) -> None:
    pipe = asyncio.subprocess.PIPE

    async def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("/no/such/program", stdin=pipe, stdout=pipe)

    async def main() -> None:
        await fail(FAILED_EXECS // 4)
        gc.collect()
        descriptors, memory, objects = open_descriptors(), resident(), len(gc.get_objects())
        await fail(FAILED_EXECS)
        gc.collect()
        assert leaked_descriptors(descriptors) == {}
        # A page for each would be four times as much.
        assert resident() - memory < 1024 * FAILED_EXECS
        assert len(gc.get_objects()) - objects < FAILED_EXECS / 10
        assert children_of_this_process() <= children

    children = children_of_this_process()
    loop.set_debug(False)  # which notes where each of them was made
    loop.run_until_complete(main())


def test_lookups_that_fail_leave_nothing(loop: Loop) -> None:
    async def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(socket.gaierror) as raised:
                await loop.getaddrinfo("no number", 80, flags=socket.AI_NUMERICHOST)
            assert raised.value.errno == socket.EAI_NONAME

    async def main() -> None:
        await fail(100)
        gc.collect()
        objects = len(gc.get_objects())
        await fail(FAILED_LOOKUPS)
        gc.collect()
        assert len(gc.get_objects()) - objects < FAILED_LOOKUPS / 10

    loop.set_debug(False)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_a_watch_that_is_set_and_taken_over_and_over_costs_nothing(loop: Loop) -> None:
    """As drivers of databases do for each question."""
    ours, theirs = socket.socketpair()
    calls: list[int] = []

    async def ask(times: int) -> None:
        for number in range(times):
            loop.add_reader(ours, calls.append, number)
            theirs.send(b"x")
            await eventually(lambda: calls)
            loop.remove_reader(ours)
            ours.recv(1)
            calls.clear()

    def objects() -> Any:
        gc.collect()
        return len(gc.get_objects())

    with ours, theirs:
        loop.run_until_complete(ask(100))
        before = objects()
        loop.run_until_complete(ask(300))
        assert objects() - before < 30
