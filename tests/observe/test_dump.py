"""`tokioloop.dump_tasks`: each task's await chain, down to a peer, a timer or a lock."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import sys
import threading

import pytest
import tokioloop
from tokioloop.observe import dump

from tests.support.net import listening_socket
from tests.support.tls import client_context, server_context


@pytest.fixture
def usr1():
    """SIGUSR1, with the handler that it had afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


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


def test_over_tls_a_task_names_its_peer_as_well(make_loop):
    loop = make_loop()

    async def main():
        accepted = []
        server = await asyncio.start_server(
            lambda reader, writer: accepted.append(writer), "127.0.0.1", 0, ssl=server_context()
        )
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context())
        task = loop.create_task(reader.read(1), name="reader")
        await settled()
        text = waits(loop)["reader"].waits_for
        await cancelled(task)
        server.close()
        for each in (writer, *accepted):
            each.transport.abort()
        while loop.metrics()["connections_open"]:
            await asyncio.sleep(0)
        return text, address[1]

    text, port = loop.run_until_complete(main())
    assert re.fullmatch(rf"data from 127\.0\.0\.1:{port} \(descriptor \d+\)", text)


def test_a_handshake_that_does_not_end_is_told(make_loop):
    loop = make_loop()

    async def main():
        with listening_socket() as listener:
            opening = asyncio.open_connection(*listener.getsockname(), ssl=client_context())
            task = loop.create_task(opening, name="arriving")
            while not loop.metrics()["bytes_sent"]:
                await asyncio.sleep(0.001)
            text = waits(loop)["arriving"].waits_for
            await cancelled(task)
            return text, listener.getsockname()[1]

    text, port = loop.run_until_complete(main())
    assert text.startswith(f"the TLS handshake with 127.0.0.1:{port} (descriptor ")


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


class Unwritable(io.StringIO):
    """A stderr that fails so many times."""

    def __init__(self, error, times):
        super().__init__()
        self.error, self.times = error, times

    def write(self, text):
        if self.times:
            self.times -= 1
            raise self.error
        return super().write(text)


def test_a_dump_that_fails_is_reported_and_does_not_end_the_program(make_loop, monkeypatch, usr1):
    loop = make_loop()
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    loop.install_dump_signal(usr1)
    error = BrokenPipeError("nobody reads it")
    monkeypatch.setattr(sys, "stderr", Unwritable(error, times=99))

    async def main():
        signal.raise_signal(usr1)
        assert told == [], "what the signal interrupts is not disturbed"
        await settled()

    loop.run_until_complete(main())
    assert told == [error]


def test_a_dump_amid_a_write_to_stderr_comes_with_the_next_turn(make_loop, monkeypatch, usr1):
    loop = make_loop()
    loop.install_dump_signal(usr1)
    file = Unwritable(RuntimeError("reentrant call"), times=1)
    monkeypatch.setattr(sys, "stderr", file)

    async def main():
        signal.raise_signal(usr1)
        assert file.getvalue() == ""
        await settled()

    loop.run_until_complete(main())
    assert file.getvalue().count("1 task on ") == 1


def test_a_signal_before_a_failing_dump_leads_to_the_handler_of_before(
    make_loop, monkeypatch, usr1
):
    seen = []
    signal.signal(usr1, lambda *args: seen.append(args[0]))
    make_loop().install_dump_signal(usr1)
    monkeypatch.setattr(sys, "stderr", Unwritable(OSError(), times=1))
    signal.raise_signal(usr1)
    assert seen == [usr1]


def test_a_loop_dumps_once_however_often_it_was_asked_to(make_loop, capfd, usr1):
    loop, other = make_loop(), make_loop()
    for each in (loop, loop, other, loop):
        each.install_dump_signal(usr1)
    signal.raise_signal(usr1)
    assert capfd.readouterr().err.count("0 tasks on ") == 2
    loop.close()
    other.close()
    make_loop().install_dump_signal(usr1)
    assert not isinstance(signal.getsignal(usr1).previous, type(signal.getsignal(usr1)))


def test_without_a_stderr_nothing_is_written(make_loop, monkeypatch, capfd, usr1):
    make_loop().install_dump_signal(usr1)
    monkeypatch.setattr(sys, "stderr", None)
    signal.raise_signal(usr1)
    assert capfd.readouterr() == ("", "")


def test_objects_that_cannot_be_written_do_not_keep_the_others_from_it(make_loop):
    loop = make_loop()

    class Secret:
        def __repr__(self):
            raise AttributeError("half made")

    class Silent(asyncio.Future):
        __repr__ = Secret.__repr__

    class Odd(asyncio.Lock):
        __repr__ = Secret.__repr__

    class Long(asyncio.Future):
        def __repr__(self):
            return "x" * 10_000

    async def wait_for(future):
        await future

    async def main():
        queue, lock = asyncio.Queue(1), Odd()
        queue.put_nowait(Secret())
        await lock.acquire()
        awaitables = {
            "queue": queue.put(1),
            "lock": lock.acquire(),
            "future": wait_for(Silent()),
            "long": wait_for(Long()),
            "gathered": wait_for(asyncio.gather(Silent())),
        }
        tasks = [loop.create_task(each, name=name) for name, each in awaitables.items()]
        await settled()
        found = {name: report.waits_for for name, report in waits(loop).items()}
        await cancelled(*tasks)
        return found

    found = loop.run_until_complete(main())
    assert re.fullmatch(r"queue <Queue at 0x[0-9a-f]+, 1 items, at most 1>", found["queue"])
    assert re.search(
        r"^odd <.*Odd at 0x[0-9a-f]+, whose repr raises AttributeError>", found["lock"]
    )
    assert "Silent at " in found["future"]
    assert "Silent at " in found["gathered"]
    assert len(found["long"]) < 1000


def test_tracking_ages_leaves_names_and_the_task_factory_alone(make_loop, usr1):
    loop, plain = make_loop(), make_loop()
    for _ in range(2):
        loop.install_dump_signal(usr1, track_ages=True)
    assert loop.get_task_factory() is None

    async def names():
        create_task = asyncio.get_running_loop().create_task
        tasks = [create_task(coro=asyncio.sleep(0), **name) for name in ({}, {"name": "mine"})]
        found = [waits(asyncio.get_running_loop())[task.get_name()] for task in tasks]
        await asyncio.gather(*tasks)
        return [(report.name.rstrip("0123456789"), report.age is None) for report in found]

    assert loop.run_until_complete(names()) == [("Task-", False), ("mine", False)]
    assert plain.run_until_complete(names()) == [("Task-", True), ("mine", True)]
    made = []
    loop.set_task_factory(
        lambda loop, coroutine, **keywords: (
            made.append(coroutine) or asyncio.Task(coroutine, loop=loop, **keywords)
        )
    )
    loop.run_until_complete(names())
    assert len(made) == 3


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
    assert "1 task on <TokioLoop running=True" in file.getvalue()


def test_without_a_loop_the_running_one_is_meant(make_loop, capfd):
    loop = make_loop()

    async def main():
        tokioloop.dump_tasks()

    loop.run_until_complete(main())
    assert "(test_without_a_loop_the_running_one_is_meant.<locals>.main)" in capfd.readouterr().err


@pytest.mark.flavours("asyncio", "tokioloop", reason="asyncio's own stands for those of others")
def test_tasks_of_any_loop_are_dumped(flavour, loop):
    file = io.StringIO()

    async def main():
        waiting = [
            asyncio.create_task(asyncio.sleep(100), name="sleeper"),
            asyncio.create_task(asyncio.Event().wait(), name="waiter"),
        ]
        await settled()
        tokioloop.dump_tasks(file=file)
        await cancelled(*waiting)

    loop.run_until_complete(main())
    text = file.getvalue()
    assert "3 tasks on " in text
    assert "waits for event <asyncio.locks.Event" in text
    behind = "a timer, due in " if flavour.name == "tokioloop" else "<Future pending"
    assert f"waits for {behind}" in text
