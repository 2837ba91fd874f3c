"""Running, stopping and closing a loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from tests.support.leaks import open_descriptors

NO_GUARDS = "rloop raises UnboundLocalError or nothing where asyncio raises RuntimeError"
OWN_STOP = "uvloop runs one turn more after stop(), rloop none when stopped before the run"


def test_run_until_complete_returns_the_result(loop):
    async def main():
        await asyncio.sleep(0)
        return "result"

    assert loop.run_until_complete(main()) == "result"


def test_run_until_complete_raises_the_exception(loop):
    async def main():
        raise LookupError("from main")

    with pytest.raises(LookupError, match="from main"):
        loop.run_until_complete(main())


def test_run_until_complete_can_be_called_again(loop):
    async def number(value):
        return value

    assert [loop.run_until_complete(number(value)) for value in range(5)] == [0, 1, 2, 3, 4]


def test_run_until_complete_stopped_early_raises(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)


def test_run_until_complete_refuses_a_future_of_another_loop(loop_factory):
    one, other = loop_factory(), loop_factory()
    with pytest.raises(ValueError):
        one.run_until_complete(other.create_future())


def test_run_until_complete_refuses_what_is_not_awaitable(loop):
    with pytest.raises(TypeError):
        loop.run_until_complete(5)


def test_the_running_loop_is_known_while_it_runs_and_only_then(loop):
    async def main():
        assert asyncio.get_running_loop() is loop
        assert loop.is_running()

    assert not loop.is_running()
    loop.run_until_complete(main())
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_GUARDS)
def test_a_running_loop_cannot_be_run_again(loop, loop_errors):
    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_GUARDS)
def test_another_loop_cannot_run_inside_a_running_one(loop_factory):
    outer, inner = loop_factory(), loop_factory()

    async def main():
        with pytest.raises(RuntimeError, match="another loop is running"):
            inner.run_forever()

    outer.run_until_complete(main())


def test_a_running_loop_cannot_be_closed(loop):
    async def main():
        with pytest.raises(RuntimeError):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_GUARDS)
def test_a_closed_loop_refuses_every_kind_of_work(loop):
    loop.close()
    assert loop.is_closed()
    for work in (
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.run_in_executor(None, print),
        loop.run_forever,
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            work()


def test_closing_twice_is_harmless(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop keeps its poll set")
def test_a_closed_loop_holds_no_descriptor(flavour):
    before = open_descriptors()
    loop = flavour.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    assert open_descriptors().keys() > before.keys()
    loop.close()
    assert open_descriptors().keys() == before.keys()
    assert loop.is_closed()  # and is still there


def test_a_closed_loop_drops_what_was_scheduled(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    loop.call_later(0, ran.append, 2)
    loop.close()
    assert ran == []


@pytest.mark.flavours("asyncio", "tokioloop", reason=OWN_STOP)
def test_stop_before_the_run_gives_exactly_one_turn(loop):
    order = []
    loop.call_soon(order.append, "queued")
    loop.call_soon(lambda: loop.call_soon(order.append, "child"))
    loop.stop()
    loop.run_forever()
    assert order == ["queued"]
    loop.stop()
    loop.run_forever()
    assert order == ["queued", "child"]


@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason=OWN_STOP)
def test_stop_in_a_callback_finishes_the_turn_and_leaves_its_children(loop):
    order = []
    loop.call_soon(loop.stop)
    loop.call_soon(order.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(order.append, "child"))
    loop.run_forever()
    assert order == ["same turn"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == ["same turn", "child"]


def test_stop_from_another_thread_ends_a_parked_loop(loop):
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert not loop.is_running()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop closes too late to end it")
def test_loops_run_side_by_side_in_threads(loop_factory):
    loops = [loop_factory() for _ in range(4)]
    results = []

    async def main(number):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"%d\n" % number)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return int(line)

    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        served.append(None)
        if len(served) == len(loops):
            all_served.set_result(None)

    server_loop = loop_factory()
    served = []
    all_served = server_loop.create_future()
    server = server_loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    threads = [
        threading.Thread(
            target=lambda loop=loop, number=number: results.append(
                loop.run_until_complete(main(number))
            )
        )
        for number, loop in enumerate(loops)
    ]
    for thread in threads:
        thread.start()
    server_loop.run_until_complete(all_served)
    for thread in threads:
        thread.join()
    server.close()
    server_loop.run_until_complete(server.wait_closed())
    assert sorted(results) == [0, 1, 2, 3]


def test_asynchronous_generators_are_closed_by_shutdown_asyncgens(loop):
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main():
        generator = numbers()
        assert await generator.__anext__() == 1
        await loop.shutdown_asyncgens()
        return generator

    loop.run_until_complete(main())
    assert closed == [True]


def test_the_repr_names_the_class_and_the_state(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop has the default repr")
    assert "running=False closed=False" in repr(loop)
    loop.close()
    assert "closed=True" in repr(loop)


def test_a_loop_is_an_event_loop_to_asyncio(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others do not derive from asyncio's loop")
def test_a_loop_is_a_selector_event_loop(loop):
    assert isinstance(loop, asyncio.SelectorEventLoop)


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others keep asyncio's state elsewhere")
def test_a_loop_has_what_asyncios_constructor_assigns(loop):
    with contextlib.closing(asyncio.SelectorEventLoop()) as model:
        assert [name for name in vars(model) if not hasattr(loop, name)] == []


@pytest.mark.min_python(3, 11)
def test_a_runner_drives_the_loop(flavour, no_leaks):
    async def main():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=flavour.new_event_loop) as runner:
        assert runner.run(main()) is runner.run(main())
        loop = runner.get_loop()
    assert loop.is_closed()
