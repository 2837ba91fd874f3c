"""The README's table of the API: every public method is in it, and where it says Rust, it is."""

from __future__ import annotations

import asyncio
import re
import types

import pytest

from tests.support.programs import REPOSITORY

pytestmark = pytest.mark.flavours("tokioloop", reason="the package's own README")

NAME = re.compile(r"`(\w+)`")


def rows():
    """`(group, names, where)` of each row of the table."""
    text = (REPOSITORY / "README.md").read_text()
    section = text.partition("### The API")[2].partition("###")[0]
    found = []
    for line in section.splitlines():
        if not line.startswith("| ") or line.startswith("| ---"):
            continue
        what, where, *others = (cell.strip() for cell in line.strip("| ").split(" | "))
        assert len(others) == 3, f"five columns: {line}"
        group, colon, names = what.partition(": ")
        found.append((group if colon else "loop", NAME.findall(names or what), where))
    return [row for row in found if row[1]]


def is_public(name):
    return not name.startswith("_")


def listed(*groups):
    return {name for group, names, _ in rows() if group in groups for name in names}


def test_every_method_of_the_loop_is_listed():
    ours = {name for name in dir(asyncio.SelectorEventLoop) if is_public(name)}
    assert ours - listed("loop") == set()


@pytest.mark.parametrize(
    ("groups", "cls", "spare"),
    [
        (("stream",), "StreamTransport", set()),
        # What it has as an asyncio.Transport, and cannot do.
        (("datagram",), "DatagramTransport", {"write", "writelines", "write_eof", "can_write_eof"}),
    ],
)
def test_every_method_of_a_transport_is_listed(tokioloop, groups, cls, spare):
    ours = {name for name in dir(getattr(tokioloop._core, cls)) if is_public(name)}
    assert ours - spare == listed(*groups)


def test_every_method_of_servers_and_handles_is_listed():
    for cls, groups in (
        (asyncio.Server, ("`Server`",)),
        (asyncio.TimerHandle, ("`Handle`", "`TimerHandle`")),
        (asyncio.SubprocessTransport, ("subprocess", "stream", "datagram")),
    ):
        ours = {name for name in dir(cls) if is_public(name)}
        assert ours - listed(*groups) == set(), cls


def test_what_is_said_to_be_in_rust_is(tokioloop, loop):
    places = {
        "loop": type(loop),
        "stream": tokioloop._core.StreamTransport,
        "datagram": tokioloop._core.DatagramTransport,
        "`Handle`": type(loop.call_soon(int)),
        "`TimerHandle`": type(loop.call_later(0, int)),
    }
    for group, names, where in rows():
        if group not in places or where not in ("Rust", "Rust below", "inherited"):
            continue
        for name in names:
            in_rust = is_in_rust(places[group], name)
            if in_rust is not None:
                assert in_rust == (where == "Rust"), f"{group}: {name} is said to be {where}"


def is_in_rust(cls, name):
    """Whether the class that defines a method is one of the extension; None where there is none."""
    for each in cls.__mro__:
        if name in vars(each):
            # Handles are made by the extension under the name of the package, and
            # our classes in Python have native methods as their own.
            native = isinstance(vars(each)[name], types.MethodDescriptorType)
            return native or each.__module__ in ("tokioloop._core", "tokioloop")
    return None
