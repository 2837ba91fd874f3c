"""The console: a Unix socket on which a loop reports its state.

The loop itself serves it, so that an answer is a sign of life. Each line that a client
sends is a JSON object with the seconds between two snapshots; each line that it gets is
a snapshot. Callbacks are measured only while a client is attached. Everything runs on
the loop's thread; only the choice of paths is shared by the loops of several threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
import struct
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from tokioloop import _core
from tokioloop.observe import describe

__all__ = ["Console", "sockets_of"]

_logger = logging.getLogger("tokioloop.console")

# Most entries of each kind that a snapshot lists; the counts are complete.
_LISTED = 200
_SHORTEST_INTERVAL = 0.05
_LONGEST_INTERVAL = 3600.0
# Seconds between two measurements of the loop's lag while a client is attached.
_PROBE_INTERVAL = 0.1
# In bytes; a request is one short line.
_LONGEST_REQUEST = 4096
# Only the user may connect.
_MODE = 0o600
# Most kinds of callbacks that are told apart.
_KINDS = 1000
# The consoles of this process by path. A child that it forks has paths of its own.
_open: weakref.WeakValueDictionary[str, Console] = weakref.WeakValueDictionary()

# Loops of several threads open their consoles one after the other: until a loop listens on the path
# that it has chosen, the path is free for others, or looks like one that was left behind.
# Reentrant, because the collector may close another loop meanwhile.
_opening = threading.RLock()


class Console:
    """The socket of one loop, and the clients that are attached to it."""

    def __init__(self, loop: Any, path: str | None) -> None:
        self.sessions: set[_Session] = set()
        self._loop = loop
        self._callbacks: dict[str, list[float]] = {}
        self._probe: asyncio.TimerHandle | None = None
        self._owner = os.getpid()
        self._closed = False
        with _opening:
            self.path = path if path is not None else _free_path()
            self._socket = _listen(self.path)
            _open[self.path] = self
        try:
            loop._start_serving(lambda: _Session(self), self._socket)
        except BaseException:
            self._unlink()
            self._socket.close()
            raise

    def close(self) -> None:
        """End all sessions, those about to begin as well, and remove the socket."""
        self._closed = True
        for session in list(self.sessions):
            session.end()
        self._unlink()
        self._loop._stop_serving(self._socket)
        self._socket.close()

    def attach(self, session: _Session) -> bool:
        """Measure from the first session on. Return False if the console was closed meanwhile."""
        if self._closed:
            return False
        if not self.sessions:
            self._callbacks.clear()
            self._loop._account_callbacks(self._account)
            self._look_at_lag()
        self.sessions.add(session)
        return True

    def detach(self, session: _Session) -> None:
        """Stop measuring after the last session. Ignores one that was turned away."""
        if session not in self.sessions:
            return
        self.sessions.remove(session)
        if not self.sessions:
            self._loop._unaccount_callbacks(self._account)
            if self._probe is not None:
                self._probe.cancel()
                self._probe = None

    def snapshot(self) -> dict[str, Any]:
        """Return the loop's state, in types that JSON takes."""
        loop = self._loop
        everything = _core.connections(loop)
        open_now = [c for c in everything if not isinstance(c["protocol"], _Session)]
        open_now.sort(key=lambda connection: (-connection["bytes_queued"], connection["fd"]))
        timers = [handle.when() for handle in loop._timer_handles() if handle is not self._probe]
        tasks = asyncio.all_tasks(loop)
        return {
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "time": time.monotonic(),
            "metrics": _core.metrics(loop),
            "callbacks": self._top_callbacks(),
            "connections": [_connection(connection) for connection in open_now[:_LISTED]],
            "connection_count": len(open_now),
            "timer_count": len(timers),
            "next_timer_seconds": min(timers) - loop.time() if timers else None,
            "tasks": [_task(task) for task in sorted(tasks, key=_name)[:_LISTED]],
            "task_count": len(tasks),
        }

    def _unlink(self) -> None:
        """Free the path. The socket still listens, so that only its own path is removed."""
        with _opening:
            if _open.get(self.path) is not self:
                return  # The path was removed, and is another console's by now.
            del _open[self.path]
            if os.getpid() == self._owner:
                Path(self.path).unlink(missing_ok=True)

    def _account(self, subject: Any, seconds: float) -> None:
        name = describe.name_of(subject)
        entry = self._callbacks.get(name)
        if entry is None:
            if len(self._callbacks) >= _KINDS:
                name = "(others)"
            entry = self._callbacks.setdefault(name, [0, 0.0, 0.0])
        entry[0] += 1
        entry[1] += seconds
        entry[2] = max(entry[2], seconds)

    def _top_callbacks(self) -> list[dict[str, Any]]:
        ranked = sorted(self._callbacks.items(), key=lambda item: -item[1][1])
        return [
            {"name": name, "count": count, "seconds": seconds, "max": longest}
            for name, (count, seconds, longest) in ranked[:_LISTED]
        ]

    def _look_at_lag(self) -> None:
        # An idle loop has no timers that could be late; this one counts like any other.
        self._probe = self._loop.call_later(_PROBE_INTERVAL, self._look_at_lag)


class _Session(asyncio.Protocol):
    """A client that is attached."""

    transport: Any = None

    def __init__(self, console: Console) -> None:
        self._console = console
        self._received = b""
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        uid = _peer_uid(transport.get_extra_info("socket"))
        if uid not in (os.getuid(), 0):
            _logger.warning("user %s may not attach to the console", uid)
            self.transport.abort()
            return
        if not self._console.attach(self):
            self.transport.abort()  # It was accepted a turn before the console closed.

    def data_received(self, data: bytes) -> None:
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        if len(self._received) > _LONGEST_REQUEST:
            self.transport.abort()
            return
        for line in lines:
            try:
                interval = float(json.loads(line)["interval"])
                if math.isnan(interval):
                    raise ValueError("not a number of seconds")
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                self._send({"error": f"a request is {{'interval': seconds}}: {error!r}"})
                self.transport.close()
                return
            self._tell(min(max(interval, _SHORTEST_INTERVAL), _LONGEST_INTERVAL))

    def connection_lost(self, error: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._console.detach(self)

    def end(self) -> None:
        """End at once: the console closes, perhaps with its loop, so no later turn may come."""
        self.transport.abort()
        self.transport._call_connection_lost(None)

    def _tell(self, interval: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(interval, self._tell, interval)
        # A client that does not read misses snapshots, instead of getting a queue of them.
        if self.transport.get_write_buffer_size() == 0:
            self._send(self._console.snapshot())

    def _send(self, message: dict[str, Any]) -> None:
        self.transport.write(json.dumps(message).encode() + b"\n")


def sockets_of(pid: int) -> list[Path]:
    """Return the paths of the consoles that a process has, or has left behind, by number."""
    return sorted(_directory().glob(f"{pid}-*.sock"), key=_place)


def _place(path: Path) -> tuple[float, str]:
    """Sort the consoles of a process: by number, then those with a name."""
    number = path.stem.partition("-")[2]
    return (int(number) if number.isdecimal() else math.inf, number)


def _directory() -> Path:
    """The user's own directory for consoles."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"tokioloop-{os.getuid()}"


def _free_path() -> str:
    directory = _directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{directory} must be this user's, with mode 0700")
    number = 0
    while (path := directory / f"{os.getpid()}-{number}.sock").exists():
        # `_open` is asked as well, since macOS refuses a connection also if too many wait. The
        # name has this process's number, so no other process listens there.
        if str(path) not in _open and not _is_alive(path):
            path.unlink(missing_ok=True)
            break
        number += 1
    return str(path)


def _is_alive(path: Path) -> bool:
    """Whether a process listens there; one that was killed leaves its path behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        listener.bind(path)
        try:
            # Nobody can connect before it listens. A umask would apply to all threads.
            os.chmod(path, _MODE)
            listener.listen()
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
    except BaseException:
        listener.close()
        raise
    return listener


def _peer_uid(sock: Any) -> int:
    if sys.platform.startswith("linux"):
        layout = struct.Struct("3i")
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
        return int(layout.unpack(data)[1])
    # struct xucred of BSD and macOS begins with its version and the uid.
    local_peercred = 1
    return int(struct.unpack_from("2I", sock.getsockopt(0, local_peercred, 76))[1])


def _connection(connection: dict[str, Any]) -> dict[str, Any]:
    told = {
        name: connection[name]
        for name in (
            "fd",
            "bytes_received",
            "bytes_sent",
            "bytes_queued",
            "closing",
            "reading_paused",
            "writing_paused",
        )
    }
    told["peer"] = describe.peer_of(connection["peer"])
    told["local"] = describe.peer_of(connection["local"])
    told["protocol"] = describe.name_of(connection["transport"])
    return told


def _task(task: asyncio.Task[Any]) -> dict[str, Any]:
    return {
        "name": task.get_name(),
        "coroutine": getattr(task.get_coro(), "__qualname__", "?"),
        "line": describe.coroutine_line(task),
    }


def _name(task: asyncio.Task[Any]) -> str:
    return task.get_name()


def _renew_lock() -> None:
    """Run in a forked child, where a thread that held the lock does not exist."""
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
