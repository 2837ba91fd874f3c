"""Which descriptors of this process a loop could have leaked, told apart by inode."""

from __future__ import annotations

import gc
import os

_KINDS = ("socket:", "pipe:", "anon_inode:")


def open_descriptors() -> set[tuple[int, str]]:
    """Sockets, pipes and kernel objects that are open now; plain files are not a loop's business.

    The link names a socket's or pipe's inode, so a descriptor number that was closed and given to
    another socket counts as new. Systems without these links tell of nothing.
    """
    found: set[tuple[int, str]] = set()
    if not os.path.isdir("/proc/self/fd"):
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor that listed the directory
        if target.startswith(_KINDS):
            found.add((int(name), target))
    return found


def require_no_new_descriptors(before: set[tuple[int, str]]) -> None:
    """Fail where something is open that was not in `before`, once garbage has been collected."""
    if not (open_descriptors() - before):
        return
    gc.collect()
    leaked = sorted(open_descriptors() - before)
    if leaked:
        raise AssertionError(f"descriptors left open: {leaked}")
