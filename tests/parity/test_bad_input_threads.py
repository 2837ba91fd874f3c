"""Methods called from another thread: asyncio corrupts itself there, tokioloop refuses by name.

What a loop does for other threads works; what it does not do is refused, in debug mode or not;
and the process lives, with a loop that works.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.net import connected

from .bad_input import Method, Resources
from .test_bad_input_loop import METHODS

pytestmark = pytest.mark.flavours("tokioloop", reason="asyncio has no check and races")

HOST = "127.0.0.1"
CALLS: dict[str, tuple[Any, ...]] = {
    "write": (b"x",),
    "writelines": ([b"x"],),
    "write_eof": (),
    "close": (),
    "abort": (),
    "pause_reading": (),
    "resume_reading": (),
    "is_reading": (),
    "set_protocol": (asyncio.Protocol(),),
    "get_protocol": (),
    "get_extra_info": ("peername",),
    "set_write_buffer_limits": (10,),
    "get_write_buffer_limits": (),
    "get_write_buffer_size": (),
}
DATAGRAM_CALLS = {
    name: arguments
    for name, arguments in CALLS.items()
    if name not in ("write", "writelines", "write_eof")
} | {"sendto": (b"x", (HOST, 9))}

# These say how the loop is, or are what other threads may call.
FOR_ANY_THREAD = {
    "call_soon_threadsafe", "stop", "is_running", "is_closed", "get_debug", "set_debug", "time",
    "create_future", "get_exception_handler", "set_exception_handler", "call_exception_handler",
    "default_exception_handler", "run_in_executor", "getaddrinfo",
    "getnameinfo",
}  # fmt: skip


async def in_other_thread(function: Callable[[], Any]) -> BaseException | None:
    """Calls a function in a thread while this loop runs; what it has raised."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    return raised[0] if raised else None


@pytest.mark.parametrize("name", CALLS)
def test_a_transport_method_in_another_thread_is_refused_by_name(
    loop: asyncio.AbstractEventLoop, name: str
) -> None:
    async def main() -> None:
        async with connected("client") as (transport, protocol, peer):
            raised = await in_other_thread(lambda: getattr(transport, name)(*CALLS[name]))
            assert isinstance(raised, RuntimeError)
            assert name in str(raised)
            # Nothing happened to the connection: it works on its own thread.
            transport.write(b"still here")
            assert peer.recv(100) == b"still here"
            assert not transport.is_closing()
            assert not protocol.is_lost

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", DATAGRAM_CALLS)
def test_a_datagram_method_in_another_thread_is_refused_by_name(
    loop: asyncio.AbstractEventLoop, name: str
) -> None:
    async def main() -> None:
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(HOST, 0)
        )
        raised = await in_other_thread(lambda: getattr(transport, name)(*DATAGRAM_CALLS[name]))
        assert isinstance(raised, RuntimeError)
        assert name in str(raised)
        assert not transport.is_closing()
        transport.close()
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())


def first_step(loop: asyncio.AbstractEventLoop, method: Method) -> None:
    """Calls a method of the loop; of a coroutine, what comes before its first wait."""
    with Resources() as resources:
        arguments = method.good(resources)
        result = getattr(loop, method.name)(*arguments)
        if inspect.iscoroutine(result):
            try:
                with suppress(StopIteration):
                    result.send(None)
            finally:
                result.close()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("method", [m for m in METHODS if m.since <= sys.version_info[:2]], ids=str)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_method_in_another_thread_does_no_harm(
    loop: asyncio.AbstractEventLoop, loop_errors: Any, method: Method, debug: bool
) -> None:
    async def main() -> None:
        raised = await in_other_thread(lambda: first_step(loop, method))
        if method.name in FOR_ANY_THREAD and method.name not in ("stop",):
            assert raised is None
        elif isinstance(raised, RuntimeError):
            assert str(raised)
        else:
            # What asyncio's own code finds before it asks the loop for anything.
            assert raised is None or isinstance(
                raised, (OSError, ValueError, TypeError, AttributeError)
            )
        # The loop works: timers, calls, connections.
        loop.set_debug(False)
        async with connected("client") as (transport, _, peer):
            transport.write(b"still here")
            assert peer.recv(100) == b"still here"
        await asyncio.sleep(0.001)

    loop.set_debug(debug)
    task = loop.create_task(main())
    # Another thread may stop a loop; the next run goes on where it was.
    while not task.done():
        with suppress(RuntimeError):
            loop.run_until_complete(task)
    task.result()
    loop.set_exception_handler(None)
    loop.set_task_factory(None)
    loop.remove_signal_handler(signal.SIGUSR1)
    loop_errors.clear()
