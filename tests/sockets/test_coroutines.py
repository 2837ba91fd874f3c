"""What `sock_*` return is a coroutine to everything that takes one, made as by an `async def`."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import socket
import ssl
import sys
import weakref
from typing import Any
from unittest import mock

import pytest

from tests.sockets.support import Loop, cancelled, exchanges
from tests.support.net import LOOPBACK, eventually, settled, socket_pair

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the coroutines of uvloop and rloop are others"
)

METHODS = [
    name
    for name in (
        "sock_recv",
        "sock_recv_into",
        "sock_recvfrom",
        "sock_recvfrom_into",
        "sock_sendall",
        "sock_sendto",
        "sock_accept",
        "sock_connect",
    )
    if hasattr(asyncio.SelectorEventLoop, name)
]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "sock_recv": (1,),
    "sock_recv_into": (bytearray(1),),
    "sock_recvfrom": (1,),
    "sock_recvfrom_into": (bytearray(1),),
    "sock_sendall": (b"x",),
    "sock_sendto": (b"x", (LOOPBACK, 9)),
    "sock_accept": (),
    "sock_connect": ((LOOPBACK, 9),),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_method_looks_like_asyncios(loop: Loop, name: str) -> None:
    method, reference = getattr(loop, name), getattr(asyncio.SelectorEventLoop, name)
    assert inspect.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(getattr(type(loop), name))
    if sys.version_info < (3, 14):
        assert asyncio.iscoroutinefunction(method)
    assert inspect.ismethod(method)
    assert method.__self__ is loop
    assert method.__name__ == name
    assert method.__qualname__ == reference.__qualname__
    assert method.__module__ == reference.__module__
    assert method.__doc__ == reference.__doc__
    bound = inspect.signature(reference).replace(
        parameters=list(inspect.signature(reference).parameters.values())[1:]
    )
    assert inspect.signature(method) == bound
    assert str(inspect.signature(getattr(type(loop), name))) == str(inspect.signature(reference))
    assert not hasattr(method, "no_such_attribute")


@pytest.mark.parametrize("name", METHODS)
def test_it_is_a_coroutine(loop: Loop, name: str) -> None:
    with socket_pair() as (ours, _theirs):
        coroutine = getattr(loop, name)(ours, *ARGUMENTS[name])
        assert isinstance(coroutine, collections.abc.Coroutine)
        assert asyncio.iscoroutine(coroutine)
        assert inspect.isawaitable(coroutine)
        assert coroutine.__name__ == name
        assert coroutine.__qualname__ == f"BaseSelectorEventLoop.{name}"
        assert f"<coroutine object BaseSelectorEventLoop.{name} at 0x" in repr(coroutine)
        assert coroutine.cr_await is None
        assert not coroutine.cr_running
        coroutine.close()


@pytest.mark.parametrize("name", METHODS)
def test_inspect_takes_it_for_the_coroutine_it_stands_for(loop: Loop, name: str) -> None:
    with socket_pair() as (ours, _theirs):
        coroutine = getattr(loop, name)(ours, *ARGUMENTS[name])
        assert inspect.iscoroutine(coroutine)
        if sys.version_info >= (3, 11):
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
            assert coroutine.cr_frame.f_code.co_name == name
        coroutine.close()
        assert coroutine.cr_code.co_name == name
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_an_error_has_the_one_that_was_being_handled_for_its_context(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            theirs.close()
            await settled()
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                with pytest.raises(OSError) as caught:
                    while True:
                        await loop.sock_sendall(ours, bytes(1 << 20))
            assert isinstance(caught.value.__context__, ZeroDivisionError)

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", METHODS)
def test_one_that_nobody_awaits_is_told_of(loop: Loop, name: str) -> None:
    with socket_pair() as (ours, _theirs):
        with pytest.warns(RuntimeWarning, match=rf"'BaseSelectorEventLoop.{name}' was never aw"):
            getattr(loop, name)(ours, *ARGUMENTS[name])
            gc.collect()


@pytest.mark.parametrize("name", METHODS)
def test_wrong_calls_are_refused_when_they_are_made(loop: Loop, name: str) -> None:
    method, reference = getattr(loop, name), getattr(asyncio.SelectorEventLoop, name)
    for arguments, keywords in (
        ((), {}),
        ((1, 2, 3, 4, 5), {}),
        ((1,), {"nothing": 2}),
        ((), {"sock": None, "more": 1}),
    ):
        with pytest.raises(TypeError) as caught:
            method(*arguments, **keywords)
        with pytest.raises(TypeError) as expected:
            reference(loop, *arguments, **keywords)
        assert str(caught.value) == str(expected.value)
    with pytest.raises(TypeError):
        getattr(type(loop), name)()


def test_arguments_may_be_named(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await loop.sock_sendall(sock=ours, data=b"named")
            assert await loop.sock_recv(theirs, n=100) == b"named"  # type: ignore[call-arg]

    loop.run_until_complete(main())


def test_nothing_happens_before_it_is_awaited(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            theirs.send(b"abcd")
            await settled()
            later, now = loop.sock_recv(ours, 2), loop.sock_recv(ours, 2)
            assert await now == b"ab"
            assert await later == b"cd"
            bad = loop.sock_recv(ours, "many")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await bad

    loop.run_until_complete(main())


def test_it_can_be_driven_by_hand(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            coroutine = loop.sock_recv(ours, 10)
            with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
                coroutine.send(1)  # type: ignore[arg-type]
            future: Any = coroutine.send(None)
            assert asyncio.isfuture(future)
            assert future._asyncio_future_blocking
            assert coroutine.cr_await is not None  # type: ignore[attr-defined]
            theirs.send(b"data")
            await eventually(future.done)
            with pytest.raises(StopIteration) as caught:
                coroutine.send(None)
            assert caught.value.value == b"data"
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                coroutine.send(None)

    loop.run_until_complete(main())


def test_a_result_that_is_a_tuple_arrives_whole(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen()
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()):
                await settled()
                with pytest.raises(StopIteration) as caught:
                    loop.sock_accept(listener).__await__().__next__()
                connection, _address = caught.value.value
                connection.close()
            with socket.create_connection(listener.getsockname()):
                await settled()
                with pytest.raises(StopIteration) as caught:
                    loop.sock_accept(listener).send(None)
                connection, _address = caught.value.value
                connection.close()

    loop.run_until_complete(main())


def test_an_exception_thrown_in_ends_the_wait(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for name in ("sock_recv", "sock_accept"):
                if name == "sock_accept":
                    ours.close()
                    break
                coroutine = getattr(loop, name)(ours, *ARGUMENTS[name])
                coroutine.send(None)
                with pytest.raises(ZeroDivisionError):
                    coroutine.throw(ZeroDivisionError())
                coroutine = getattr(loop, name)(ours, *ARGUMENTS[name])
                with pytest.raises(KeyError):
                    coroutine.throw(KeyError("early"))
                coroutine = getattr(loop, name)(ours, *ARGUMENTS[name])
                coroutine.send(None)
                coroutine.close()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 12)
def test_an_eager_task_receives_what_is_there_at_once(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            theirs.send(b"data")
            await settled()
            task = asyncio.Task(loop.sock_recv(ours, 4), loop=loop, eager_start=True)
            assert task.done()
            assert task.result() == b"data"
            task = asyncio.Task(loop.sock_recv(ours, 4), loop=loop, eager_start=True)
            assert not task.done()
            theirs.send(b"more")
            assert await task == b"more"

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio leaves a reader behind, which ends it later")
def test_a_coroutine_dropped_while_it_waits_leaves_nothing(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for _ in range(3):
                coroutine = loop.sock_recv(ours, 10)
                coroutine.send(None)
                del coroutine
                gc.collect()
                assert loop.metrics()["watches_open"] == 0  # type: ignore[attr-defined]
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


def test_nothing_is_kept_alive(loop: Loop) -> None:
    class Buffer(bytearray):
        pass

    async def main() -> list[weakref.ref[Any]]:
        with socket_pair() as (ours, theirs):
            buffer = Buffer(10)
            theirs.send(b"data")
            await loop.sock_recv_into(ours, buffer)
            waiting = asyncio.ensure_future(loop.sock_recv_into(ours, buffer))
            await settled()
            await cancelled(waiting)
            references = [weakref.ref(ours), weakref.ref(buffer)]
            return references

    references = loop.run_until_complete(main())
    gc.collect()
    assert [reference() for reference in references] == [None, None]


class Loud(socket.socket):
    """A socket of somebody's own: its methods have to be called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []

    def recv(self, *args: Any) -> bytes:
        self.calls.append("recv")
        return super().recv(*args)

    def send(self, data: Any, *args: Any) -> int:
        self.calls.append("send")
        return super().send(data[:3], *args)


def test_a_class_of_somebodys_own_takes_its_own_path(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (plain, theirs):
            ours = Loud(fileno=plain.detach())
            with ours:
                ours.setblocking(False)
                receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
                await settled()
                theirs.send(b"data")
                assert await receiving == b"data"
                await loop.sock_sendall(ours, b"in parts of three")
                await settled()
                assert theirs.recv(100)
                assert ours.calls.count("recv") == 2
                assert ours.calls.count("send") == 6

    loop.run_until_complete(main())


def test_a_patched_class_takes_its_own_path(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            with mock.patch.object(socket.socket, "recv", lambda self, n: b"patched", create=True):
                assert await loop.sock_recv(ours, 100) == b"patched"
            with mock.patch.object(
                socket.socket, "send", lambda self, data: len(data), create=True
            ):
                await loop.sock_sendall(ours, b"swallowed")
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


def test_an_object_with_a_descriptor_is_as_good_as_a_socket(loop: Loop) -> None:
    class Wrapper:
        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            wrapped: Any = Wrapper(ours)
            receiving = asyncio.ensure_future(loop.sock_recv(wrapped, 100))
            await settled()
            theirs.send(b"data")
            assert await receiving == b"data"
            await exchanges(loop, ours, theirs)
            await exchanges(loop, wrapped, theirs)

    loop.run_until_complete(main())


def test_tls_sockets_are_refused(loop: Loop) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False

    async def main() -> None:
        with context.wrap_socket(socket.socket()) as sock:
            for name in METHODS:
                with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                    await getattr(loop, name)(sock, *ARGUMENTS[name])

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", METHODS)
def test_garbage_is_refused_in_the_words_of_asyncio(loop: Loop, name: str) -> None:
    method = getattr(loop, name)
    reference = getattr(asyncio.SelectorEventLoop, name)

    async def outcome(function: Any, *arguments: Any) -> tuple[type, str]:
        try:
            await function(*arguments)
        except Exception as error:
            return type(error), str(error)
        return type(None), ""

    async def main() -> None:
        with socket_pair() as (ours, _theirs):
            for garbage in (None, 5, "text", object(), 1.5):
                arguments = ARGUMENTS[name]
                assert await outcome(method, garbage, *arguments) == await outcome(
                    reference, loop, garbage, *arguments
                )
                for index in range(len(arguments)):
                    if name == "sock_connect" and index == 0 and garbage == "text":
                        continue
                    wrong = (*arguments[:index], garbage, *arguments[index + 1 :])
                    if name in ("sock_recv", "sock_recvfrom") and garbage == 5:
                        continue
                    assert await outcome(method, ours, *wrong) == await outcome(
                        reference, loop, ours, *wrong
                    )
            for size in (-1, 0, 1 << 70):
                if name == "sock_recv" or (name == "sock_recvfrom" and size):
                    assert await outcome(method, ours, size) == await outcome(
                        reference, loop, ours, size
                    )

    loop.run_until_complete(main())
