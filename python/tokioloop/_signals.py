"""Signals: the handlers of many loops, and the one wake-up descriptor of the process.

C's signal handlers write a signal's number to that descriptor. asyncio's loops take it for
themselves, and reset it when they are done, whoever else has handlers. Here it goes from loop to
loop: the loop with handlers that the main thread runs has it, or else another one that has some.
A loop that is told of a signal which another one handles passes it on.

Only the main thread may set the descriptor, and so add and remove handlers, whichever thread runs
the loop; the socket is made with the loop for that reason. Between two lines of the main thread a
KeyboardInterrupt may come up, which must leave no descriptor behind that is closed later. A loop
with handlers that another thread closes leaves its socket open until the main thread sets the
descriptor again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from tokioloop._registry import all_loops
from tokioloop._signatures import in_place_of

__all__ = ["SignalLoop", "is_main_thread"]

# What was set last: only the main thread could ask the system.
_wakeup_fd = -1
# A signal handler of the program's, which may add another one, runs between any two lines.
_setting = threading.RLock()
# Sockets of closed loops that C may still write to: closed, their numbers would be another file's.
_left_open: list[socket.socket] = []
# A number that no file has, and that does not stand for none.
_NO_DESCRIPTOR = -2


class SignalLoop(asyncio.SelectorEventLoop):
    """What a loop has to do with signals."""

    _signal_handlers: dict[int, asyncio.Handle]
    _signal_socket: socket.socket | None
    # Its number, which the collector may have closed before the loop.
    _signal_fd: int
    _watch_signals: Callable[[int], None]

    def _open_signal_socket(self) -> None:
        """Make what C signal handlers write to; the last step of making a loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            self._watch_signals(ours.detach())
        except BaseException:
            theirs.close()
            raise
        self._signal_socket, self._signal_fd = theirs, theirs.fileno()

    @property
    def _csock(self) -> socket.socket:
        """The socket that C signal handlers write to."""
        if self._signal_socket is None:
            raise RuntimeError("Event loop is closed")
        return self._signal_socket

    def run_forever(self) -> None:
        if not is_main_thread():
            super().run_forever()
            return
        ours = self._csock.fileno()
        # Nobody's, until it is known.
        previous, is_foreign = -1, False
        try:
            previous = _set_wakeup_fd(ours)
            is_foreign = self._is_foreign(previous)
            if previous not in (-1, ours) and not self._signal_handlers:
                # Somebody else listens for signals and this loop has no handlers:
                # theirs stays, and the interrupted poll still returns at once.
                _give_back(previous)
            super().run_forever()
        finally:
            current = _set_wakeup_fd(self._fd_of_heir())
            if current not in (ours, -1):
                # Somebody has set another one during the run: it stays.
                _give_back(current)
            elif is_foreign:
                _give_back(previous)

    @in_place_of(asyncio.SelectorEventLoop.add_signal_handler)
    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._check_process("add_signal_handler")
        try:
            super().add_signal_handler(sig, callback, *args)
        finally:
            # asyncio's method has taken it for this loop, or, refused by the system, for nobody.
            if is_main_thread():
                current = _set_wakeup_fd(self._fd_of_heir())
                if self._is_foreign(current):
                    _give_back(current)

    @in_place_of(asyncio.SelectorEventLoop.remove_signal_handler)
    def remove_signal_handler(self, sig: int) -> bool:
        self._check_signal(sig)
        if sig not in self._signal_handlers:
            return False
        others = (loop for loop in all_loops() if loop is not self and _has_handlers(loop))
        is_taken = any(sig in loop._signal_handlers for loop in others)
        if not is_main_thread():
            if is_taken:
                return self._signal_handlers.pop(sig, None) is not None
            return super().remove_signal_handler(sig)
        # Its own, for as long as it is not known whose it will be; none where it is closed, or
        # its parent's in a forked child.
        previous = _set_wakeup_fd(-1 if self._signal_fd == -1 else self._csock.fileno())
        try:
            if is_taken:
                # Another loop has taken the signal over: it keeps it.
                return self._signal_handlers.pop(sig, None) is not None
            return super().remove_signal_handler(sig)
        finally:
            _set_wakeup_fd(self._fd_of_heir())
            if self._is_foreign(previous):
                _give_back(previous)

    def _handle_signal(self, sig: int) -> None:
        if sig in self._signal_handlers:
            super()._handle_signal(sig)
            return
        for loop in all_loops():
            other = loop._signal_socket
            if sig in loop._signal_handlers and other is not None:
                # As C would. What finds no room, or no loop, is lost there, too.
                with contextlib.suppress(OSError):
                    other.send(bytes((sig,)))

    def _close_signal_socket(self) -> None:
        """Close what C writes to; the last step of close()."""
        if self._signal_socket is None:
            return
        if is_main_thread():
            # After a run that was interrupted before it could, or with handlers that
            # CPython leaves alone as the interpreter ends.
            current = _set_wakeup_fd(self._fd_of_heir())
            if current not in (self._signal_fd, -1):
                _give_back(current)
            self._signal_socket.close()
        else:
            with _setting:
                if self._signal_fd == _wakeup_fd:
                    _left_open.append(self._signal_socket)
                else:
                    self._signal_socket.close()
        self._signal_socket, self._signal_fd = None, -1

    def _fd_of_heir(self) -> int:
        """The descriptor of the loop that signals are to wake now, -1 where there is none."""
        running: Any = asyncio._get_running_loop()
        if not isinstance(running, SignalLoop) or running._is_inherited():
            running = None
        heir = next(filter(_has_handlers, (running, self, *all_loops())), running)
        # Another thread may close the heir meanwhile.
        theirs = None if heir is None else heir._signal_socket
        return -1 if theirs is None else theirs.fileno()

    def _is_inherited(self) -> bool:
        """Whether this is the parent's, in a forked child: what wakes it wakes the parent."""
        return self._signal_socket is not None and self._signal_fd == -1

    def _check_process(self, method: str) -> None:
        if self._is_inherited():
            raise RuntimeError(
                f"{method}() was called in a forked child: this event loop belongs to the parent "
                "process"
            )

    def _is_foreign(self, fd: int) -> bool:
        """Whether a wake-up descriptor is that of no loop of ours."""
        if fd in (-1, self._signal_fd):
            return False
        return all(loop._signal_socket is None or loop._signal_fd != fd for loop in all_loops())


def _has_handlers(loop: SignalLoop | None) -> bool:
    if loop is None or loop.is_closed() or loop._is_inherited():
        return False
    return bool(loop._signal_handlers)


def is_main_thread() -> bool:
    """Whether this thread may have handlers of signals.

    Before 3.13 the main thread of `threading` is the one that has imported it first, which in
    an embedded interpreter may be another one than the interpreter's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if sys.version_info >= (3, 13):
        return True
    try:
        signal.set_wakeup_fd(_NO_DESCRIPTOR)
    except ValueError:
        return False  # What it says of the thread comes before what it says of the number.
    except OSError:
        pass
    return True


def _renew_lock() -> None:
    """In a forked child: the thread that has held it is not there."""
    global _setting
    _setting = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def _set_wakeup_fd(fd: int) -> int:
    """Set the wake-up descriptor, and return the one of before; -1 if its loop is closed."""
    global _wakeup_fd
    with _setting:
        previous = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        _wakeup_fd = fd
    while _left_open:
        with _left_open.pop() as left:
            if left.fileno() == previous:
                previous = -1
    return previous


def _give_back(fd: int) -> None:
    """Set the wake-up descriptor of somebody else again, who may have closed it meanwhile."""
    with contextlib.suppress(OSError, ValueError):
        _set_wakeup_fd(fd)
