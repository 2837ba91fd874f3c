"""Signals: the handlers of many loops, and the one wake-up descriptor of the process.

CPython's signal handler in C writes a signal's number to that descriptor. An asyncio loop takes it
for itself, and resets it when it is done, even if another loop has handlers. Here it goes from loop
to loop: the loop that the main thread runs has it if that has handlers, else another one that has
some. A loop that receives a signal which only another one handles passes it on.

Only the main thread may set the descriptor, and so add and remove handlers, whichever thread runs
the loop. For that reason the socket is made with the loop. A KeyboardInterrupt may come between any
two lines of the main thread, and must not leave a descriptor set that is closed later. If another
thread closes a loop with handlers, its socket stays open until the main thread sets the descriptor
again.
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

# The descriptor that was set last; only the main thread could ask the interpreter for it.
_wakeup_fd = -1
# Reentrant: a handler of the program's, which may add another one, runs between any two lines.
_setting = threading.RLock()
# Sockets of closed loops to which signals may still be written. If they were closed, their numbers
# could become those of other files.
_left_open: list[socket.socket] = []
# A number that no file has, and that does not mean "none" as -1 does.
_NO_DESCRIPTOR = -2


class SignalLoop(asyncio.SelectorEventLoop):
    """The part of a loop that handles signals."""

    _signal_handlers: dict[int, asyncio.Handle]
    _signal_socket: socket.socket | None
    # The socket's number. The collector may have closed the socket before the loop.
    _signal_fd: int
    _watch_signals: Callable[[int], None]

    def _open_signal_socket(self) -> None:
        """Make the sockets that signals are written to; the last step of making a loop."""
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
    def _csock(self) -> socket.socket | None:
        """The socket that signals are written to; None once the loop is closed."""
        return self._signal_socket

    def run_forever(self) -> None:
        if not is_main_thread():
            super().run_forever()
            return
        ours = self._fd_of_signal_socket()
        # There is nothing to give back until the previous descriptor is known.
        previous, is_foreign = -1, False
        before = set(self._signal_handlers)
        try:
            previous = _set_wakeup_fd(ours)
            is_foreign = self._is_foreign(previous)
            if previous not in (-1, ours) and not self._signal_handlers:
                # Other code listens for signals and this loop has no handlers: their
                # descriptor stays. A signal interrupts the poll, which then returns at once.
                _give_back(previous)
            super().run_forever()
        finally:
            current = _set_wakeup_fd(self._fd_of_heir())
            if current not in (ours, -1):
                # Other code has set another one during the run: it stays.
                _give_back(current)
            elif is_foreign and self._signal_handlers.keys() <= before:
                # Otherwise handlers were added during the run, to be heard after it as well.
                _give_back(previous)

    @in_place_of(asyncio.SelectorEventLoop.add_signal_handler)
    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._check_process("add_signal_handler")
        try:
            super().add_signal_handler(sig, callback, *args)
        finally:
            # asyncio's method has set the descriptor to this loop's, or to none if the system has
            # refused the signal.
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
        # This loop's own, until it is known which loop's it will be. None if this one is closed,
        # or is the parent's in a forked child.
        previous = _set_wakeup_fd(-1 if self._signal_fd == -1 else self._fd_of_signal_socket())
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
                # As the handler in C would, which also loses a signal if there is no room.
                with contextlib.suppress(OSError):
                    other.send(bytes((sig,)))

    def _close_signal_socket(self) -> None:
        """Close the socket that signals are written to; the last step of close()."""
        if self._signal_socket is None:
            return
        if is_main_thread():
            # The descriptor may still be this loop's: if a run was interrupted before it gave
            # it up, or with handlers that CPython leaves in place as the interpreter ends.
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
        """Return the descriptor of the loop that signals are to wake now, or -1 for none."""
        running: Any = asyncio._get_running_loop()
        if not isinstance(running, SignalLoop) or running._is_inherited():
            running = None
        heir = next(filter(_has_handlers, (running, self, *all_loops())), running)
        # Another thread may close the heir meanwhile.
        theirs = None if heir is None else heir._signal_socket
        return -1 if theirs is None else theirs.fileno()

    def _fd_of_signal_socket(self) -> int:
        """The descriptor of the loop's own socket, -1 if that is closed."""
        return -1 if self._signal_socket is None else self._signal_socket.fileno()

    def _is_inherited(self) -> bool:
        """Whether this is the parent's loop in a forked child: waking it would wake the parent."""
        return self._signal_socket is not None and self._signal_fd == -1

    def _check_process(self, method: str) -> None:
        if self._is_inherited():
            raise RuntimeError(
                f"{method}() was called in a forked child: this event loop belongs to the parent "
                "process"
            )

    def _is_foreign(self, fd: int) -> bool:
        """Whether a wake-up descriptor belongs to none of our loops."""
        if fd in (-1, self._signal_fd):
            return False
        return all(loop._signal_socket is None or loop._signal_fd != fd for loop in all_loops())


def _has_handlers(loop: SignalLoop | None) -> bool:
    if loop is None or loop.is_closed() or loop._is_inherited():
        return False
    return bool(loop._signal_handlers)


def is_main_thread() -> bool:
    """Whether this thread may set signal handlers.

    Before 3.13 the main thread of `threading` is the one that imported it first, which in an
    embedded interpreter may not be the interpreter's main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if sys.version_info >= (3, 13):
        return True
    try:
        signal.set_wakeup_fd(_NO_DESCRIPTOR)
    except ValueError:
        return False  # It checks the thread before the number.
    except OSError:
        pass
    return True


def _renew_lock() -> None:
    """Run in a forked child, where a thread that held the lock does not exist."""
    global _setting
    _setting = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def _set_wakeup_fd(fd: int) -> int:
    """Set the wake-up descriptor and return the previous one, or -1 if its loop is closed."""
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
    """Restore the wake-up descriptor of other code, which may have closed it meanwhile."""
    with contextlib.suppress(OSError, ValueError):
        _set_wakeup_fd(fd)
