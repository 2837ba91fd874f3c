"""Wrong arguments for every public method of the loop: asyncio's errors, word for word."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import pytest

from .bad_input import NONSENSE, Method, Resources, call_wrongly, compare, one_call, spare
from .harness import Trace
from .wires import client_tls

HOST = "127.0.0.1"
FACTORY = asyncio.Protocol

# A name would be looked up, and no address or an empty one means all interfaces.
NOT_A_HOST = {"text", "empty text", "None", "bytes", "list"}
NO_LOOK_UP = spare(1, *NOT_A_HOST)

METHODS = [
    Method("run_forever"),
    Method("run_until_complete", lambda r: (r.coroutine(),)),
    Method("stop"),
    Method("is_running"),
    Method("is_closed"),
    Method("close"),
    Method("time"),
    Method("call_soon", lambda r: (int,)),
    Method("call_soon_threadsafe", lambda r: (int,)),
    Method("call_later", lambda r: (0, int)),
    # What does not compare with a number fails only once there is something to compare it with.
    Method("call_at", lambda r: (0, int), spare(0, *(NONSENSE.keys() - {"None", "-1", "1.5", "2**70"}))),
    Method("create_future"),
    Method("create_task", lambda r: (r.coroutine(),)),
    Method("set_task_factory", lambda r: (asyncio.Task,), spare(0, "class")),
    Method("get_task_factory"),
    Method("set_exception_handler", lambda r: (print,), spare(0, "class")),
    Method("get_exception_handler"),
    Method("call_exception_handler", lambda r: ({"message": "probe"},)),
    Method("default_exception_handler", lambda r: ({"message": "probe"},)),
    Method("set_debug", lambda r: (False,)),
    Method("get_debug"),
    Method("run_in_executor", lambda r: (None, int)),
    Method("set_default_executor", lambda r: (None,), since=(3, 11)),
    Method("shutdown_asyncgens"),
    Method("getaddrinfo", lambda r: (HOST, 80), spare(0, *NOT_A_HOST)),
    Method("getnameinfo", lambda r: ((HOST, 80), 3)),
    Method("create_connection", lambda r: (FACTORY, HOST, 1), NO_LOOK_UP),
    Method("create_server", lambda r: (FACTORY, HOST, 0), NO_LOOK_UP),
    Method("create_unix_connection", lambda r: (FACTORY, "/tmp/no-such-path-parity")),
    Method("create_unix_server", lambda r: (FACTORY, "/no/such/folder/path"),
           spare(1, "text", "bytes", "empty text")),
    Method("connect_accepted_socket", lambda r: (FACTORY, r.socket())),
    Method("create_datagram_endpoint", lambda r: (FACTORY, (HOST, 0))),
    Method("start_tls", lambda r: (object(), object(), client_tls())),
    Method("sendfile", lambda r: (object(), r.file())),
    Method("sock_sendfile", lambda r: (r.socket(), r.file())),
    Method("sock_recv", lambda r: (r.socket(), 10)),
    Method("sock_recv_into", lambda r: (r.socket(), bytearray(10))),
    Method("sock_recvfrom", lambda r: (r.socket(), 10), since=(3, 11)),
    Method("sock_recvfrom_into", lambda r: (r.socket(), bytearray(10), 3), since=(3, 11)),
    Method("sock_sendall", lambda r: (r.socket(), b"x")),
    Method("sock_sendto", lambda r: (r.socket(), b"x", (HOST, 9)), since=(3, 11)),
    Method("sock_connect", lambda r: (r.socket(), "/tmp/no-such-path-parity")),
    Method("sock_accept", lambda r: (r.socket(),)),
    Method("connect_read_pipe", lambda r: (FACTORY, r.socket()), spare(1, "closed socket")),
    Method("connect_write_pipe", lambda r: (FACTORY, r.socket()), spare(1, "closed socket")),
    Method("subprocess_exec", lambda r: (asyncio.SubprocessProtocol, "/no/such/program")),
    # Here the child's exit and the end of its pipes race for the first error.
    Method("subprocess_shell", lambda r: (asyncio.SubprocessProtocol, "exit 0"), spare(0, *NONSENSE)),
    Method("add_reader", lambda r: (r.socket(), int)),
    Method("remove_reader", lambda r: (r.socket(),)),
    Method("add_writer", lambda r: (r.socket(), int)),
    Method("remove_writer", lambda r: (r.socket(),)),
    Method("add_signal_handler", lambda r: (signal.SIGUSR1, int)),
    Method("remove_signal_handler", lambda r: (signal.SIGUSR1,)),
]  # fmt: skip


async def _on_a_running_loop(loop: Any, trace: Trace, method: Method) -> None:
    if method.name in ("add_reader", "add_writer"):
        # How often a callback that fails is called before its socket is closed is chance.
        loop.set_exception_handler(lambda *_: None)
    await call_wrongly(trace, loop, method)
    loop.set_debug(False)
    loop.set_task_factory(None)
    if method.name not in ("add_reader", "add_writer"):
        loop.set_exception_handler(None)
    for fileno in (signal.SIGUSR1,):
        loop.remove_signal_handler(fileno)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.since <= sys.version_info[:2] <= m.until], ids=str
)
def test_wrong_arguments_of_a_loop_method(method: Method) -> None:
    found = compare(method, _on_a_running_loop)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_the_table_has_every_public_method_with_arguments() -> None:
    listed = {method.name for method in METHODS}
    public = {
        name
        for name in dir(asyncio.SelectorEventLoop)
        if not name.startswith("_") and callable(getattr(asyncio.SelectorEventLoop, name))
    }
    # Its executor is shut down for good, so this one has a probe of its own.
    assert public - listed <= {"shutdown_default_executor"}


KEYWORDS: dict[str, dict[str, Any]] = {
    "call_soon": {"context": "Context"},
    "call_soon_threadsafe": {"context": "Context"},
    "call_later": {"context": "Context"},
    "call_at": {"context": "Context"},
    "create_task": {"name": 5},
    "create_connection": dict.fromkeys(
        ("ssl", "family", "proto", "flags", "sock", "local_addr", "server_hostname",
         "ssl_handshake_timeout", "happy_eyeballs_delay", "interleave")
    ),
    "create_server": dict.fromkeys(
        ("family", "flags", "sock", "backlog", "ssl", "reuse_address", "reuse_port",
         "ssl_handshake_timeout", "start_serving")
    ),
    "create_unix_connection": dict.fromkeys(("ssl", "sock", "server_hostname", "ssl_handshake_timeout")),
    "create_unix_server": dict.fromkeys(
        ("sock", "backlog", "ssl", "ssl_handshake_timeout", "start_serving")
    ),
    "getaddrinfo": dict.fromkeys(("family", "type", "proto", "flags")),
    "connect_accepted_socket": dict.fromkeys(("ssl", "ssl_handshake_timeout")),
    "create_datagram_endpoint": dict.fromkeys(
        ("remote_addr", "family", "proto", "flags", "reuse_port", "allow_broadcast", "sock")
    ),
    "start_tls": dict.fromkeys(("server_side", "server_hostname", "ssl_handshake_timeout")),
    "sendfile": dict.fromkeys(("offset", "count", "fallback")),
    "sock_sendfile": dict.fromkeys(("offset", "count", "fallback")),
    "subprocess_exec": dict.fromkeys(("stdin", "stdout", "stderr", "env", "cwd", "pass_fds")),
}  # fmt: skip


async def _by_keyword(loop: Any, trace: Trace, method: Method) -> None:
    for keyword in KEYWORDS[method.name]:
        for label, make in NONSENSE.items():
            if (keyword, label) in (("flags", "9999"), ("interleave", "9999")):
                continue
            with Resources() as resources:
                call = getattr(loop, method.name)
                args, kwargs = method.good(resources), {keyword: make(resources)}
                await one_call(trace, f"{keyword} is {label}", call, args, kwargs)


@pytest.mark.parametrize("method", [m for m in METHODS if m.name in KEYWORDS], ids=str)
def test_wrong_keywords_of_a_loop_method(method: Method) -> None:
    found = compare(method, _by_keyword)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


async def _after_close(loop: Any, trace: Trace, method: Method) -> None:
    """Another loop is closed and called from this running one."""
    closed = type(loop)()
    closed.close()
    with Resources() as resources:
        args = method.good(resources)
        await one_call(trace, "on a closed loop", getattr(closed, method.name), args, {})
    trace("still closed", closed.is_closed())


# These start work in a thread or a process before they look at the loop, or wait for ever.
_NOT_ON_A_CLOSED_LOOP = {"run_until_complete", "shutdown_asyncgens", "subprocess_shell", "sock_accept",
                         "start_tls", "sendfile"}  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS if m.since <= sys.version_info[:2] and m.name not in _NOT_ON_A_CLOSED_LOOP],
    ids=str,
)
def test_a_method_of_a_closed_loop(method: Method) -> None:
    found = compare(method, _after_close)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
