"""Context variables in every kind of callback, and tasks that are current or not."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import socket
import threading
from typing import Any

from tests.support.net import LOOPBACK

from ..harness import Trace
from ..registry import probe
from ..wires import KINDS, Told, until, wired

Loop = Any
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class Watcher(Told):
    """Tells the value of `var` in each callback, and sets it."""

    def tell(self, call: str, *values: object) -> None:
        super().tell(call, var.get(), asyncio.current_task() is None)
        var.set(f"set in {call}")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.received) <= 2:
            self.tell("data_received")


@probe("C.43", each=KINDS)
async def a_client_sees_the_context_of_its_caller(loop: Loop, trace: Trace, kind: str) -> None:
    var.set("caller")
    async with wired(loop, lambda: Watcher(trace), kind) as (_, protocol, peer):
        var.set("later")
        trace("caller sees", var.get())
        for size in (1, 2):
            peer.send(b"x")
            await until(lambda size=size: len(protocol.received) >= size)
        peer.close()
        await until(lambda: protocol.lost)
    trace("caller still sees", var.get())


@probe("C.43")
async def connections_of_a_server_see_the_context_of_create_server(
    loop: Loop, trace: Trace
) -> None:
    made: list[Watcher] = []

    def factory() -> Watcher:
        trace("factory", var.get())
        made.append(Watcher(trace))
        return made[-1]

    var.set("create_server")
    server = await loop.create_server(factory, LOOPBACK, 0)
    var.set("later")
    for count in (1, 2):
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.send(b"x")
            await until(lambda count=count: len(made) == count and made[-1].received)
        await until(lambda: made[-1].lost)
    server.close()
    await server.wait_closed()


@probe("C.43")
async def datagrams_see_the_context_of_their_endpoint(loop: Loop, trace: Trace) -> None:
    var.set("caller")
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Watcher(trace), local_addr=(LOOPBACK, 0)
    )
    var.set("later")
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        for count in (1, 2):
            peer.sendto(b"x", transport.get_extra_info("sockname"))
            await until(lambda count=count: len(protocol.received) == count)
    transport.close()
    await until(lambda: protocol.lost)


@probe("C.43")
async def flow_control_calls_see_a_context(loop: Loop, trace: Trace) -> None:
    var.set("caller")
    async with wired(loop, lambda: Watcher(trace)) as (transport, protocol, peer):
        var.set("writer")
        while "pause_writing" not in protocol.calls:
            transport.write(bytes(1 << 16))
        peer.setblocking(False)
        while "resume_writing" not in protocol.calls:
            await loop.sock_recv(peer, 1 << 20)


@probe("C.45")
async def readers_and_writers_keep_the_context_of_their_registration(
    loop: Loop, trace: Trace
) -> None:
    seen: list[str] = []

    def ready() -> None:
        seen.append(var.get())
        var.set(f"call {len(seen)}")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        var.set("registration")
        loop.add_writer(ours, ready)
        var.set("later")
        await until(lambda: len(seen) >= 3)
        loop.remove_writer(ours)
        theirs.send(b"x")
        trace("writer", seen[:3])
        seen.clear()
        loop.add_reader(ours, ready)
        await until(lambda: len(seen) >= 3)
        loop.remove_reader(ours)
        trace("reader", seen[:3])


@probe("C.45")
async def signal_handlers_keep_the_context_of_their_registration(loop: Loop, trace: Trace) -> None:
    seen: list[str] = []

    def on_signal() -> None:
        seen.append(var.get())
        var.set(f"call {len(seen)}")

    var.set("registration")
    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    var.set("later")
    for count in (1, 2):
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda count=count: len(seen) == count)
    loop.remove_signal_handler(signal.SIGUSR1)
    trace("seen", seen)


@probe("C.46")
async def the_exception_handler_runs_in_the_context_of_what_failed(
    loop: Loop, trace: Trace
) -> None:
    handled: list[str] = []
    loop.set_exception_handler(lambda *_: handled.append(var.get()))

    def fail() -> None:
        var.set("inside")
        raise ValueError

    async def fail_task() -> None:
        fail()

    var.set("outside")
    context = contextvars.copy_context()
    context.run(var.set, "given")
    loop.call_soon(fail, context=context)
    loop.call_later(0, fail)
    await until(lambda: len(handled) == 2)
    task = context.run(loop.create_task, fail_task())
    await asyncio.wait([task])
    del task
    import gc

    gc.collect()
    trace("handled", handled)


@probe("A.call_soon", each=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
async def a_given_context_is_used(loop: Loop, trace: Trace, name: str) -> None:
    context = contextvars.copy_context()
    context.run(var.set, "given")
    var.set("caller")
    time = {"call_later": (0,), "call_at": (0,)}.get(name, ())
    seen: list[str] = []

    def callback() -> None:
        seen.append(var.get())
        var.set("changed")

    getattr(loop, name)(*time, callback, context=context)
    getattr(loop, name)(*time, callback)
    await until(lambda: len(seen) == 2)
    trace("seen", seen)
    trace("the context has", context[var], "and the caller", var.get())


@probe("A.call_soon")
async def threadsafe_calls_take_the_context_of_their_thread(loop: Loop, trace: Trace) -> None:
    seen: list[str] = []

    def other_thread() -> None:
        var.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))

    thread = threading.Thread(target=other_thread)
    thread.start()
    await until(lambda: seen)
    thread.join()
    trace("seen", seen)


@probe("A.create_task", since=(3, 11))
async def a_task_takes_a_context(loop: Loop, trace: Trace) -> None:
    async def body() -> str:
        seen = var.get()
        var.set("changed by the task")
        return seen

    context = contextvars.copy_context()
    context.run(var.set, "given")
    trace("task", await loop.create_task(body(), context=context))
    trace("context", context[var], var.get())


@probe("A.run_in_executor")
async def an_executor_does_not_see_the_context(loop: Loop, trace: Trace) -> None:
    var.set("caller")
    trace("executor", await loop.run_in_executor(None, var.get))
    trace("to_thread", await asyncio.to_thread(var.get))
