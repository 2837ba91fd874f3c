"""Pipe transports: FIFOs, terminals, sockets, and the standard streams of children, under load."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pty
import socket
import sys
import termios
import tty

import pytest

from tests.support.net import eventually, settled
from tests.support.protocols import Recorder

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", reason="the peers abort on some pipes and lose data on others"
    ),
    # Before 3.12 asyncio waits for children in threads, with warnings of their own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MEGABYTE = 1 << 20
THROUGH_CAT = 64 * MEGABYTE
PIPE = asyncio.subprocess.PIPE


class Writer(asyncio.BaseProtocol):
    """What drain() of a stream is, for a bare write pipe."""

    def __init__(self):
        self.room = asyncio.Event()
        self.room.set()
        self.lost = asyncio.get_running_loop().create_future()

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def blocks(total, size=256 * 1024):
    """Bytes that differ from block to block, so that none can be lost or swapped unseen."""
    pattern = os.urandom(size - 8)
    for number in range(total // size):
        yield number.to_bytes(8, "big") + pattern


@pytest.mark.time_limit(60)
def test_much_data_goes_through_a_child_both_ways_at_once(loop):
    async def feed(stdin):
        digest = hashlib.sha256()
        for block in blocks(THROUGH_CAT):
            digest.update(block)
            stdin.write(block)
            await stdin.drain()
        stdin.close()
        return digest.digest()

    async def drink(stdout):
        digest, count = hashlib.sha256(), 0
        while data := await stdout.read(MEGABYTE):
            digest.update(data)
            count += len(data)
        return digest.digest(), count

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        sent, (received, count) = await asyncio.gather(feed(process.stdin), drink(process.stdout))
        assert await process.wait() == 0
        assert count == THROUGH_CAT
        assert received == sent

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_several_children_at_once_do_not_mix_their_streams(loop):
    async def one(number):
        text = b"%d\n" % number * 100_000
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        output, errors = await process.communicate(text)
        assert (output, errors, process.returncode) == (text, b"", 0)

    async def main():
        await asyncio.gather(*map(one, range(8)))

    loop.run_until_complete(main())


def test_a_fifo_carries_data_between_two_transports(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main():
        # A reader that does not block, for a FIFO opens when both of its ends are there.
        reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        source, recorder = await loop.connect_read_pipe(Recorder, reading)
        sink, writer = await loop.connect_write_pipe(
            Writer, os.fdopen(os.open(path, os.O_WRONLY), "wb", 0)
        )
        sent = b"".join(blocks(4 * MEGABYTE))
        for start in range(0, len(sent), 1 << 16):
            await writer.room.wait()
            sink.write(sent[start : start + (1 << 16)])
        sink.write_eof()
        await recorder.until(lambda recorder: recorder.is_lost)
        assert recorder.received == sent
        assert recorder.calls == [
            "connection_made",
            "data_received",
            "eof_received",
            "connection_lost",
        ]
        assert await writer.lost is None
        assert sink.is_closing() and source.is_closing()

    loop.run_until_complete(main())


def test_a_fifo_that_a_second_writer_opens_goes_on(loop, tmp_path):
    """Its end of file comes when the last writer leaves."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main():
        reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        _, recorder = await loop.connect_read_pipe(Recorder, reading)
        first, second = os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY)
        os.write(first, b"first")
        await recorder.until_received(5)
        os.close(first)
        await settled()
        assert not recorder.is_lost
        os.write(second, b"second")
        os.close(second)
        assert await recorder.until_lost() is None
        assert recorder.received == b"firstsecond"

    loop.run_until_complete(main())


def test_a_terminal_reads_writes_and_hangs_up(loop):
    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave, termios.TCSANOW)
        out = os.fdopen(os.dup(slave), "wb", 0)
        source, recorder = await loop.connect_read_pipe(Recorder, os.fdopen(slave, "rb", 0))
        sink, writer = await loop.connect_write_pipe(Writer, out)
        os.write(master, b"typed")
        assert await recorder.until_received(5) == b"typed"
        sink.write(b"shown")
        await eventually(lambda: sink.get_write_buffer_size() == 0)
        assert os.read(master, 100) == b"shown"
        sink.close()
        await writer.lost
        os.close(master)
        # Linux tells of the hang-up by an error or an end of file, by the kernel's taste.
        lost_with = await recorder.until_lost()
        assert lost_with is None or isinstance(lost_with, OSError)
        assert source.is_closing()

    loop.run_until_complete(main())


def test_a_terminal_takes_what_a_slow_reader_leaves(loop):
    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave, termios.TCSANOW)
        sink, writer = await loop.connect_write_pipe(Writer, os.fdopen(slave, "wb", 0))
        sent = os.urandom(300_000)
        sink.write(sent)
        assert not writer.room.is_set()
        received = bytearray()
        os.set_blocking(master, False)
        loop.add_reader(master, lambda: received.extend(os.read(master, 1 << 16)))
        await eventually(lambda: len(received) == len(sent))
        assert received == sent
        assert writer.room.is_set()
        loop.remove_reader(master)
        sink.close()
        await writer.lost
        os.close(master)

    loop.run_until_complete(main())


def test_sockets_are_pipes_as_well(loop):
    async def main():
        ours, theirs = socket.socketpair()
        source, recorder = await loop.connect_read_pipe(Recorder, ours)
        sink, writer = await loop.connect_write_pipe(Writer, theirs)
        sent = b"".join(blocks(2 * MEGABYTE))
        for start in range(0, len(sent), 1 << 16):
            await writer.room.wait()
            sink.write(sent[start : start + (1 << 16)])
        sink.close()
        assert await recorder.until_lost() is None
        assert recorder.received == sent
        assert await writer.lost is None
        await settled()
        assert ours.fileno() == theirs.fileno() == -1

    loop.run_until_complete(main())


def test_a_writer_is_told_when_the_reader_has_gone(loop):
    """Also one that writes nothing: a hang-up wakes it."""

    async def main():
        reading, writing = os.pipe()
        sink, writer = await loop.connect_write_pipe(Writer, os.fdopen(writing, "wb", 0))
        os.close(reading)
        lost_with = await writer.lost
        assert lost_with is None or isinstance(lost_with, BrokenPipeError)
        sink.write(b"dropped")
        await settled()

    loop.run_until_complete(main())


def test_unread_data_of_a_fifo_stays_for_the_next_reader(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main():
        keeper = os.open(path, os.O_RDWR)
        reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        source, recorder = await loop.connect_read_pipe(Recorder, reading)
        source.pause_reading()
        await settled()
        os.write(keeper, b"kept")
        await settled()
        source.close()
        await recorder.until_lost()
        assert recorder.received == b""
        assert os.read(keeper, 100) == b"kept"
        os.close(keeper)

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_a_paused_reader_holds_the_writer_up(loop):
    async def main():
        reading, writing = os.pipe()
        source, recorder = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
        sink, writer = await loop.connect_write_pipe(Writer, os.fdopen(writing, "wb", 0))
        source.pause_reading()
        assert not source.is_reading()
        written = 0
        while writer.room.is_set():
            sink.write(bytes(1 << 16))
            written += 1 << 16
        await settled()
        assert recorder.received == b""
        source.resume_reading()
        await writer.room.wait()
        sink.close()
        await recorder.until_lost()
        assert len(recorder.received) == written

    loop.run_until_complete(main())


def test_a_child_gets_real_pipes(loop):
    """Not sockets: programs look, and reopen them by name."""

    async def main():
        program = "import os, stat; print(*(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (1, 2)))"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        output, _ = await process.communicate()
        assert output == b"True True\n"

    loop.run_until_complete(main())
