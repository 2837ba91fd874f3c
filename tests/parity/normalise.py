"""Makes what two loops show comparable: values become plain data, texts lose what cannot be equal.

Removed are addresses, descriptors, ports, process ids, durations and the names of classes that are
private to a loop. Everything else, down to the wording of an error, stays.
"""

from __future__ import annotations

import re
from typing import Any

_PORT = 1 << 10  # ephemeral ports are above; what a probe writes down itself is below

_RULES: list[tuple[re.Pattern[str], str]] = [
    # The traceback of where an object was made runs through files of the loop.
    (re.compile(r"(created at) \(most recent call last\):?\n.*", re.S), r"\1 …"),
    (re.compile(r" created at .*?:\d+"), " created at …"),
    (re.compile(r"\b0x[0-9a-fA-F]+"), "0x…"),
    (re.compile(r"\b(fd|pid)([= ])-?\d+"), r"\1\2N"),
    (re.compile(r"([Ff]ile descriptor) \d+"), r"\1 N"),
    (re.compile(r"(_(?:add|remove)_(?:reader|writer)\()\d+"), r"\1N"),
    (re.compile(r"(<_io\.\w+ name=)\d+"), r"\1N"),
    (re.compile(r"\bsubprocess \d+ is"), "subprocess N is"),
    # Functions in C and in Python word a wrong number of arguments in their own ways.
    (
        re.compile(
            r"(takes (no|from|exactly|at most|\d+) .*(arguments?|given)\)?"
            r"|got an unexpected keyword argument '\w+'|takes no keyword arguments)$"
        ),
        "takes other arguments",
    ),
    (re.compile(r"(\('127\.0\.0\.1', )\d{4,5}"), r"\1PORT"),
    (re.compile(r"\bport \d{4,5}\b"), "port PORT"),
    (re.compile(r"\btook \d+\.\d+ (m?s)"), r"took T \1"),
    (re.compile(r"\bwhen=-?\d+(\.\d+)?"), "when=T"),
    (re.compile(r"\bTask-\d+"), "Task-N"),
    (re.compile(r"/tmp/[\w./-]+"), "PATH"),
    # A transport that closes may still show the interest it is about to drop.
    (re.compile(r"( closing .*? write=<)(?:idle|polling), bufsize=\d+"), r"\1…"),
    # Where a class lives and what a private one is called are no promises.
    (re.compile(r"\b(?:asyncio|uvloop|rloop|tokioloop)(?:\.\w+)*\.(?=<?_?[A-Z])"), ""),
    (re.compile(r"\b_?(?:UnixSelector|Selector|BaseSelector|Base|Tokio)EventLoop\b"), "EventLoop"),
    (re.compile(r"\b(?:TokioLoop|ReferenceTwin)\b"), "EventLoop"),
    (re.compile(r"\b_?[A-Z]\w*Transport\b(?<!TransportSocket)"), "Transport"),
    (re.compile(r"\b_ThreadSafeHandle\b"), "Handle"),
    (re.compile(r"\b(?:BaseServer|AbstractServer|Server)\b"), "Server"),
    # A call error names the function with its class: `Transport.write() missing 1 …`.
    (re.compile(r"\b[A-Z_]\w*\.(\w+\(\))"), r"\1"),
]


def text(value: object) -> str:
    """`str(value)` without what differs from run to run or from loop to loop."""
    plain = str(value)
    for pattern, replacement in _RULES:
        plain = pattern.sub(replacement, plain)
    return plain


def describe(value: object) -> Any:
    """`value` as plain data that compares equal when a program could not tell the difference."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _octets(bytes(value))
    if isinstance(value, BaseException):
        return error(value)
    if isinstance(value, type):
        return f"class {text(value.__qualname__)}"
    if isinstance(value, tuple):
        return tuple(
            "PORT" if _is_port(value, index) else describe(item) for index, item in enumerate(value)
        )
    if isinstance(value, list):
        return [describe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, map(describe, value)))
    if isinstance(value, dict):
        return {describe(key): describe(item) for key, item in value.items()}
    return text(repr(value))


def error(exc: BaseException) -> tuple[Any, ...]:
    """Type, text and the parts of a group; the cause is told by the log, not by the type."""
    kind = type(exc)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    parts = getattr(exc, "exceptions", None)
    if parts is not None:
        return (name, text(exc), tuple(map(error, parts)))
    return (name, text(exc))


def _octets(data: bytes) -> str:
    return repr(data) if len(data) <= 64 else f"{len(data)} bytes, crc {_checksum(data):08x}"


def _checksum(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


def _is_port(address: tuple[Any, ...], index: int) -> bool:
    """Second of a socket address: `(host, port)` or `(host, port, flowinfo, scope)`."""
    return (
        index == 1
        and len(address) in (2, 4)
        and isinstance(address[0], str)
        and type(address[1]) is int
        and address[1] > _PORT
    )
