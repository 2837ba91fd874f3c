"""The context in which each kind of callback runs."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import sys

import pytest

from tests.support.net import SIDES, connected, eventually, socket_pair
from tests.support.protocols import Recorder

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

NO_CONTEXT = "rloop calls much outside the context of the caller"
SHARED = "uvloop shares one context per server; rloop has none of the caller's"


def run_once(loop):
    loop.call_later(0.005, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop, *args, **kw: loop.call_soon(*args, **kw),
        lambda loop, *args, **kw: loop.call_soon_threadsafe(*args, **kw),
        lambda loop, *args, **kw: loop.call_later(0, *args, **kw),
        lambda loop, *args, **kw: loop.call_at(loop.time(), *args, **kw),
    ],
    ids=["call_soon", "call_soon_threadsafe", "call_later", "call_at"],
)
@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CONTEXT)
class TestScheduledCallbacks:
    def test_a_copy_of_the_current_context_is_the_default(self, loop, schedule):
        seen = []

        def set_and_schedule():
            variable.set("of the caller")
            schedule(loop, lambda: (seen.append(variable.get()), variable.set("of the callback")))
            schedule(loop, lambda: seen.append(variable.get()))

        contextvars.copy_context().run(set_and_schedule)
        run_once(loop)
        assert sorted(seen) == ["of the caller", "of the caller"]

    def test_a_context_that_is_given_is_used_itself(self, loop, schedule):
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        seen = []
        schedule(
            loop,
            lambda: (seen.append(variable.get()), variable.set("changed")),
            context=context,
        )
        run_once(loop)
        assert seen == ["given"]
        assert context[variable] == "changed"
        assert variable.get() == "unset"


def test_the_loops_own_context_is_untouched_by_callbacks(loop):
    loop.call_soon(variable.set, "in a callback")
    run_once(loop)
    assert variable.get() == "unset"


def test_tasks_have_a_context_of_their_own(loop):
    async def child(value):
        variable.set(value)
        await asyncio.sleep(0)
        return variable.get()

    async def main():
        variable.set("parent")
        results = await asyncio.gather(child("one"), child("two"))
        assert variable.get() == "parent"
        return results

    assert loop.run_until_complete(main()) == ["one", "two"]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CONTEXT)
def test_a_reader_runs_in_the_context_of_its_registration_each_time(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            seen = []

            def on_readable():
                ours.recv(10)
                seen.append(variable.get())
                variable.set("by the first call")

            variable.set("of the registration")
            loop.add_reader(ours.fileno(), on_readable)
            variable.set("changed since")
            theirs.send(b"1")
            await eventually(lambda: len(seen) == 1)
            theirs.send(b"2")
            await eventually(lambda: len(seen) == 2)
            loop.remove_reader(ours.fileno())
            assert seen == ["of the registration", "by the first call"]

    loop.run_until_complete(main())


class Watches(Recorder):
    """Notes the variable in each callback and sets it to the callback's name."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _record(self, call):
        if not (call == "data_received" and self.calls[-1:] == ["data_received"]):
            self.seen.append((call, variable.get()))
        variable.set(call)
        super()._record(call)


@pytest.mark.parametrize("side", SIDES)
class TestProtocolCallbacks:
    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CONTEXT)
    def test_they_see_what_the_caller_had_set(self, loop, side):
        async def main():
            variable.set("of the caller")
            async with connected(side, Watches) as (_transport, protocol, peer):
                variable.set("changed since")
                peer.sendall(b"data")
                await protocol.until_received(4)
                assert ("connection_made", "of the caller") in protocol.seen

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason=SHARED)
    def test_data_received_keeps_its_own_changes_from_call_to_call(self, loop, side):
        class Counts(Recorder):
            def data_received(self, data):
                self.seen = [*getattr(self, "seen", []), variable.get()]
                variable.set(f"set by call {len(self.seen)}")
                super().data_received(data)

        async def main():
            variable.set("of the caller")
            async with connected(side, Counts) as (_transport, protocol, peer):
                for count in range(1, 4):
                    peer.sendall(b"x")
                    await protocol.until_received(count)
                assert protocol.seen == ["of the caller", "set by call 1", "set by call 2"]

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CONTEXT)
    def test_nothing_leaks_into_the_caller(self, loop, side):
        async def main():
            variable.set("of the caller")
            async with connected(side, Watches) as (transport, protocol, peer):
                peer.sendall(b"data")
                await protocol.until_received(4)
                transport.close()
                await protocol.until_lost()
            assert variable.get() == "of the caller"

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=SHARED)
def test_connections_of_a_server_do_not_share_a_context(loop):
    import socket

    from tests.support.net import serving

    class Claims(Recorder):
        def data_received(self, data):
            self.seen = variable.get()
            variable.set(data.decode())
            super().data_received(data)
            done.append(self)

    async def main():
        variable.set("of the server")
        async with serving(Claims) as (_server, address):
            clients = [socket.create_connection(address, timeout=5) for _ in range(5)]
            for number, client in enumerate(clients):
                client.sendall(b"client %d" % number)
            await eventually(lambda: len(done) == 5)
            for client in clients:
                client.close()
            for protocol in done:
                await protocol.until_lost()
            assert [protocol.seen for protocol in done] == ["of the server"] * 5

    done = []
    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop calls it in the task")
@pytest.mark.parametrize("side", SIDES)
def test_no_task_is_current_in_a_protocol_callback(loop, side):
    class Asks(Recorder):
        def _record(self, call):
            tasks.append((call, asyncio.current_task()))
            super()._record(call)

    async def main():
        async with connected(side, Asks) as (transport, protocol, peer):
            peer.sendall(b"x")
            await protocol.until_received(1)
            transport.close()
            await protocol.until_lost()

    tasks = []
    loop.run_until_complete(main())
    assert [call for call, _task in tasks] == [
        "connection_made",
        "data_received",
        "connection_lost",
    ]
    assert {task for _call, task in tasks} == {None}


@pytest.mark.min_python(3, 12)
@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop calls it in its own context")
def test_the_exception_handler_runs_in_the_context_of_the_failing_handle(loop, loop_errors):
    seen = []
    loop.set_exception_handler(lambda _loop, _context: seen.append(variable.get()))

    def fail():
        variable.set("of the handle")
        raise LookupError

    loop.call_soon(fail)
    run_once(loop)
    assert seen == ["of the handle"]


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers do not notice")
def test_a_callback_that_leaves_in_another_context_is_reported_itself(loop, loop_errors, caplog):
    outer, entered = contextvars.Context(), contextvars.Context()

    def enter():
        assert ctypes.pythonapi.PyContext_Enter(ctypes.py_object(entered)) == 0

    called = []
    loop.call_soon(enter, context=outer)
    loop.call_soon(called.append, 1)
    run_once(loop)
    for context in (entered, outer):
        assert ctypes.pythonapi.PyContext_Exit(ctypes.py_object(context)) == 0
    assert called == [1]
    # From 3.12 on the report is made in the callback's context, which cannot be entered.
    reported = caplog.text if sys.version_info >= (3, 12) else str(loop_errors.take())
    assert "cannot exit context" in reported
    assert "enter()" in reported
