"""`TokioLoop(slow_callback=...)`: reports without debug mode."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time

import pytest
from tokioloop.observe import slow
from tokioloop.observe.slow import SlowReports

from tests.support.tls import client_context, server_context


def reports(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "tokioloop.slow"]


def test_a_slow_step_names_coroutine_task_and_line(make_loop, caplog):
    loop = make_loop(slow_callback=0.02)
    loop.set_debug(False)

    async def sluggish():
        time.sleep(0.03)
        await asyncio.sleep(0)  # here it stands when the report is written

    async def main():
        await asyncio.create_task(sluggish(), name="worker-7")

    loop.run_until_complete(main())
    (report,) = reports(caplog)
    line = sluggish.__code__.co_firstlineno + 2
    assert "sluggish held the loop for 0.0" in report
    assert "task 'worker-7'" in report
    assert f"{__file__}:{line} in sluggish" in report


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_slow_protocol_is_named(make_loop, caplog, tls):
    # Made before the loop runs, which they would hold.
    served, asked = (server_context(), client_context()) if tls else (None, None)
    loop = make_loop(slow_callback=0.02)

    class Sluggish(asyncio.Protocol):
        def data_received(self, data):
            time.sleep(0.03)
            done.set_result(None)

    async def main():
        nonlocal done
        done = loop.create_future()
        server = await loop.create_server(Sluggish, "127.0.0.1", 0, ssl=served)
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address, ssl=asked)
        writer.write(b"x")
        await done
        writer.close()
        server.close()
        while loop.metrics()["connections_open"]:
            await asyncio.sleep(0)

    done = None
    loop.run_until_complete(main())
    (report,) = reports(caplog)
    assert "<locals>.Sluggish held the loop" in report


def test_a_slow_protocol_factory_is_named(make_loop, caplog):
    """It runs in the event of its server's socket, before there is a transport."""
    loop = make_loop(slow_callback=0.02)

    def sluggish():
        time.sleep(0.03)
        made.set_result(None)
        return asyncio.Protocol()

    async def main():
        nonlocal made
        made = loop.create_future()
        server = await loop.create_server(sluggish, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await made
        server.close()
        while loop.metrics()["connections_open"]:
            await asyncio.sleep(0)

    made = None
    loop.run_until_complete(main())
    (report,) = reports(caplog)
    assert "sluggish held the loop" in report


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe", "add_reader"])
def test_a_slow_callback_that_cancels_itself_is_named(make_loop, caplog, how):
    loop = make_loop(slow_callback=0.02)
    ours, theirs = socket.socketpair()

    def sluggish():
        if how == "add_reader":
            loop.remove_reader(ours)
        else:
            handle.cancel()
        time.sleep(0.03)
        loop.stop()

    if how == "add_reader":
        theirs.send(b"x")
        loop.add_reader(ours, sluggish)
    else:
        handle = getattr(loop, how)(*([0] if how == "call_later" else []), sluggish)
    loop.run_forever()
    ours.close()
    theirs.close()
    (report,) = reports(caplog)
    assert "sluggish held the loop" in report


def test_a_slow_signal_handler_is_named(make_loop, caplog):
    """asyncio makes its handle."""
    loop = make_loop(slow_callback=0.02)

    def sluggish():
        loop.remove_signal_handler(signal.SIGUSR1)
        time.sleep(0.03)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, sluggish)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    (report,) = reports(caplog)
    assert "sluggish held the loop" in report


def test_fast_callbacks_are_not_reported(make_loop, caplog):
    loop = make_loop(slow_callback=10.0)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert not reports(caplog)
    assert loop.metrics()["callback_duration_seconds"]["count"] > 0


def test_reports_of_one_kind_are_rationed_and_counted(caplog, monkeypatch):
    reports_of_loop = SlowReports()
    told = []
    monkeypatch.setattr(slow, "hooks", [lambda report, task: told.append(report)])

    for _ in range(5):
        reports_of_loop.note(time.sleep, 0.1)
    assert [report.suppressed for report in told] == [0]
    reports_of_loop._kinds["time.sleep"] = (time.monotonic() - 2, 4)
    reports_of_loop.note(time.sleep, 0.1)
    assert [report.suppressed for report in told] == [0, 4]
    assert "4 more like it" in reports(caplog)[-1]


def test_reports_of_all_kinds_are_rationed(monkeypatch, caplog):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.5)
    reports_of_loop = SlowReports()
    for number in range(50):
        reports_of_loop.note(type(f"Kind{number}", (), {})(), 0.1)
    assert len(reports(caplog)) == 10


@pytest.mark.parametrize("value", [-0.1, 3601.0, float("nan")])
@pytest.mark.parametrize("option", ["slow_callback", "stall_timeout"])
def test_a_wrong_value_names_the_option_and_its_range(make_loop, option, value):
    with pytest.raises(ValueError, match=rf"{option} must be from 0\.0 to 3600\.0 seconds"):
        make_loop(**{option: value})


def test_an_exception_in_a_measured_callback_is_reported_as_ever(make_loop, caplog):
    loop = make_loop(slow_callback=5.0)
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(lambda: 1 / 0)
    loop.run_until_complete(asyncio.sleep(0))
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)
    with pytest.raises(SystemExit), caplog.at_level(logging.CRITICAL):
        loop.call_soon(exit, 3)
        loop.run_forever()
