"""`tokioloop.dump_tasks`: each task's await chain, down to a peer, a timer or a lock."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import threading

import pytest
import tokioloop
from tokioloop.observe import dump


def waits(loop):
    return {report.name: report for report in dump.reports(loop)}


async def settled(*tasks):
    """Lets every task come to where it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def cancelled(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_thousand_tasks_each_name_their_peer_or_timer(make_loop):
    loop = make_loop()

    async def read(reader):
        await reader.read(1)

    async def main():
        accepted = []
        server = await asyncio.start_server(
            lambda reader, writer: accepted.append(writer), "127.0.0.1", 0
        )
        address = server.sockets[0].getsockname()
        streams = [await asyncio.open_connection(*address) for _ in range(100)]
        readers = {
            f"reader-{number}": loop.create_task(read(reader), name=f"reader-{number}")
            for number, (reader, _) in enumerate(streams)
        }
        sleepers = {
            f"sleeper-{number}": loop.create_task(
                asyncio.sleep(100 + number), name=f"sleeper-{number}"
            )
            for number in range(900)
        }
        await settled()
        found = waits(loop)
        assert len(found) == 1001
        for name in readers:
            assert f"data from 127.0.0.1:{address[1]} (descriptor " in found[name].waits_for
        descriptors = {found[name].waits_for for name in readers}
        assert len(descriptors) == 100, "each names its own descriptor"
        for number in range(900):
            due = re.fullmatch(r"a timer, due in ([\d.]+) s", found[f"sleeper-{number}"].waits_for)
            assert 90 + number < float(due[1]) <= 100 + number
        await cancelled(*readers.values(), *sleepers.values())
        for writer in accepted + [writer for _, writer in streams]:
            writer.close()
        server.close()

    loop.run_until_complete(main())


def test_the_chain_goes_from_the_task_to_the_innermost_coroutine(make_loop):
    loop = make_loop()

    async def inner():
        await asyncio.sleep(100)

    async def outer():
        await inner()

    async def main():
        task = loop.create_task(outer(), name="chain")
        await settled()
        report = waits(loop)["chain"]
        functions = [line.rpartition(" in ")[2] for line in report.chain]
        assert functions == ["outer", "inner", "sleep"]
        assert report.chain[0].startswith(f"{__file__}:{outer.__code__.co_firstlineno + 1} ")
        assert report.coroutine == outer.__qualname__
        assert waits(loop)[asyncio.current_task().get_name()].waits_for == "nothing: it runs"
        await cancelled(task)

    loop.run_until_complete(main())


def test_locks_tasks_descriptors_and_threads_are_named(make_loop):
    loop = make_loop()
    release = threading.Event()

    async def main():
        lock = asyncio.Lock()
        await lock.acquire()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        target = loop.create_task(lock.acquire(), name="lock")
        tasks = [
            target,
            loop.create_task(asyncio.Queue().get(), name="queue"),
            loop.create_task(asyncio.Event().wait(), name="event"),
            loop.create_task(asyncio.wait({target}), name="wait"),
            loop.create_task(loop.sock_recv(ours, 1), name="socket"),
            loop.create_task(asyncio.to_thread(release.wait, 10), name="thread"),
        ]
        await settled()
        found = {name: report.waits_for for name, report in waits(loop).items()}
        assert found["lock"].startswith("lock <asyncio.locks.Lock object")
        assert found["queue"].startswith("queue <Queue")
        assert found["event"].startswith("event <asyncio.locks.Event object")
        assert f"descriptor {ours.fileno()} to be readable" in found["socket"]
        assert found["thread"] == "a thread or process of an executor"
        release.set()
        await cancelled(*tasks)
        ours.close()
        theirs.close()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_a_timeout_around_the_wait_is_told(make_loop):
    loop = make_loop()

    async def limited():
        async with asyncio.timeout(50):
            await asyncio.Event().wait()

    async def main():
        task = loop.create_task(limited(), name="limited")
        await settled()
        text = waits(loop)["limited"].waits_for
        assert text.startswith("event ")
        left = re.search(r", at most ([\d.]+) s more$", text)
        assert 40 < float(left[1]) <= 50
        await cancelled(task)

    loop.run_until_complete(main())


def test_a_signal_dumps_to_stderr_and_ages_are_known_then(make_loop, capfd):
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    signal.signal(signal.SIGUSR1, lambda *args: seen.append(args[0]))
    try:
        loop.install_dump_signal(signal.SIGUSR1, track_ages=True)

        async def main():
            task = loop.create_task(asyncio.sleep(100), name="waiter")
            await settled()
            os.kill(os.getpid(), signal.SIGUSR1)
            while not seen:
                await asyncio.sleep(0)
            await cancelled(task)

        loop.run_until_complete(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
    text = capfd.readouterr().err
    assert re.search(r"task 'waiter' \(sleep\), \d+\.\d s old", text)
    assert re.search(r"waits for a timer, due in (99|100)\.", text)
    assert seen == [signal.SIGUSR1], "the handler of before is called as well"


def test_a_loop_of_another_thread_dumps_itself(make_loop):
    loop = make_loop()
    started, finish = threading.Event(), threading.Event()
    file = io.StringIO()

    async def main():
        started.set()
        while not finish.is_set():
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(10)
    tokioloop.dump_tasks(loop, file)
    loop.call_soon_threadsafe(finish.set)
    thread.join(10)
    assert not thread.is_alive()
    assert "1 tasks on <TokioLoop running=True" in file.getvalue()


def test_without_a_loop_the_running_one_is_meant(make_loop, capfd):
    loop = make_loop()

    async def main():
        tokioloop.dump_tasks()

    loop.run_until_complete(main())
    assert "(test_without_a_loop_the_running_one_is_meant.<locals>.main)" in capfd.readouterr().err
