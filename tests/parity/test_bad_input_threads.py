"""Transports used from another thread: asyncio corrupts itself there, tokioloop refuses by name."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.support.net import connected

pytestmark = pytest.mark.flavours("tokioloop", reason="asyncio has no check and races")

CALLS: dict[str, tuple[Any, ...]] = {
    "write": (b"x",),
    "writelines": ([b"x"],),
    "write_eof": (),
    "close": (),
    "abort": (),
    "pause_reading": (),
    "resume_reading": (),
    "set_protocol": (asyncio.Protocol(),),
    "set_write_buffer_limits": (10,),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_transport_method_in_another_thread_is_refused_by_name(
    loop: asyncio.AbstractEventLoop, name: str
) -> None:
    raised: list[BaseException] = []

    async def main() -> None:
        async with connected("client") as (transport, protocol, peer):

            def other_thread() -> None:
                try:
                    getattr(transport, name)(*CALLS[name])
                except RuntimeError as exc:
                    raised.append(exc)

            thread = threading.Thread(target=other_thread)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            # Nothing happened to the connection: it works on its own thread.
            transport.write(b"still here")
            assert peer.recv(100) == b"still here"
            assert not transport.is_closing()
            assert not protocol.is_lost

    loop.run_until_complete(main())
    assert len(raised) == 1
    assert name in str(raised[0])
