"""Where the records of the Rust side enter `logging`; `src/logging.rs` calls it.

`RUST_LOG` has already filtered what comes here. A program that has set up no logging at
all sees the records on stderr, as it would from a Rust program.
"""

from __future__ import annotations

import logging

__all__ = ["TRACE", "emit"]

TRACE = 5

logging.addLevelName(TRACE, "TRACE")

_root = logging.getLogger("tokioloop")
if _root.level == logging.NOTSET:
    # RUST_LOG is the filter; the root logger's WARNING must not be another.
    _root.setLevel(TRACE)

_fallback = logging.StreamHandler()
_fallback.setFormatter(logging.Formatter("%(asctime)s %(levelname)-5s %(name)s: %(message)s"))


def emit(name: str, level: int, message: str, created: float, file: str, line: int) -> None:
    """Log a message of Rust code, made at `created` (`time.time()`) by a line of a file."""
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(name, level, file, line, message, (), None)
    record.relativeCreated += (created - record.created) * 1000
    record.created = created
    record.msecs = int(created % 1 * 1000) + 0.0
    if logger.hasHandlers():
        logger.handle(record)
    else:
        _fallback.handle(record)
