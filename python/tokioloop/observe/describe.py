"""Names for what a loop runs: callbacks, tasks, coroutines, transports."""

from __future__ import annotations

import asyncio
import functools
import os
import types
from asyncio import sslproto
from collections.abc import Iterator
from typing import Any

__all__ = [
    "await_chain",
    "chain_lines",
    "coroutine_line",
    "frames_of",
    "name_of",
    "peer_of",
    "protocol_of",
    "task_of",
]


def task_of(subject: Any) -> asyncio.Task[Any] | None:
    """Return the task whose step a callback is, if it is one."""
    owner = getattr(subject, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def name_of(subject: Any) -> str:
    """Name a callback, or what a transport runs. All of a kind have the same name.

    A task's step has the name of its coroutine, a transport that of its protocol's class,
    everything else that of its function.
    """
    if isinstance(subject, asyncio.BaseTransport):
        protocol = protocol_of(subject)
        return _qualified(type(protocol if protocol is not None else subject))
    task = task_of(subject)
    if task is not None:
        return _qualified(task.get_coro())
    while isinstance(subject, functools.partial):
        subject = subject.func
    return _qualified(subject)


def protocol_of(transport: Any) -> Any:
    """Return the protocol that the program has for a connection.

    Over TLS the transport's own protocol is asyncio's, and the program's is behind that.
    None if the protocol was told of the connection's end.
    """
    get_protocol = getattr(transport, "get_protocol", None)
    protocol = get_protocol() if get_protocol is not None else None
    while isinstance(protocol, sslproto.SSLProtocol):
        protocol = protocol._app_protocol
    return protocol


def _qualified(thing: Any) -> str:
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    module = getattr(thing, "__module__", None)
    code = getattr(thing, "cr_code", None) or getattr(thing, "gi_code", None)
    if module is None and code is not None:
        module = os.path.basename(code.co_filename).removesuffix(".py")
    return f"{module}.{name}" if module else str(name)


def await_chain(coroutine: Any) -> Iterator[Any]:
    """Yield a coroutine, what it awaits, what that awaits, to the innermost."""
    seen = set()
    while coroutine is not None and id(coroutine) not in seen:
        seen.add(id(coroutine))
        yield coroutine
        inner = None
        for attribute in ("cr_await", "gi_yieldfrom", "ag_await"):
            inner = getattr(coroutine, attribute, None)
            if inner is not None:
                break
        coroutine = inner


def frames_of(coroutine: Any) -> list[types.FrameType]:
    """Return the frames of a suspended coroutine and what it awaits, outermost first."""
    frames = map(_frame_of, await_chain(coroutine))
    return [frame for frame in frames if frame is not None]


def _frame_of(link: Any) -> types.FrameType | None:
    for attribute in ("cr_frame", "gi_frame", "ag_frame"):
        frame: types.FrameType | None = getattr(link, attribute, None)
        if frame is not None:
            return frame
    return None


def chain_lines(coroutine: Any) -> Iterator[str]:
    """Yield `file:line in function` for each link of an await chain, outermost first.

    A coroutine that is written in C has no line, only a name; one of tokioloop's has the line
    where asyncio's own function begins (CPython 3.11 and later).
    """
    for link in await_chain(coroutine):
        frame = _frame_of(link)
        if frame is not None:
            yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        elif hasattr(link, "cr_await") or hasattr(link, "gi_yieldfrom"):
            yield f"in {getattr(link, '__qualname__', type(link).__qualname__)}"


def coroutine_line(task: asyncio.Task[Any]) -> str | None:
    """Return `file:line in function` of the innermost frame of user code.

    asyncio's own frames are left out if there are others, because all tasks wait in the
    same few of them.
    """
    frames = frames_of(task.get_coro())
    if not frames:
        return None
    own = [frame for frame in frames if not _is_asyncio(frame)]
    frame = (own or frames)[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _is_asyncio(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).split(".")[0] == "asyncio"


def peer_of(address: Any) -> str:
    """Write a socket address as people do: `127.0.0.1:80`, `[::1]:80`, a path."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        return os.fsdecode(address).replace("\0", "@")
    return str(address) if address else "an unnamed peer"
