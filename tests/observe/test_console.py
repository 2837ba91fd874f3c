"""The console and `python -m tokioloop top`: what it shows, who may attach, what a dead loop is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokioloop.observe import top as top_command
from tokioloop.observe.console import sockets_of
from tokioloop.observe.top import quantile_between

from tests.support.tls import client_context, server_context

SERVICE = """
    import asyncio, sys, time, tokioloop

    async def sluggish():
        while True:
            time.sleep(0.01)
            await asyncio.sleep(0.005)

    async def main():
        task = asyncio.create_task(sluggish(), name="the-slow-one")
        kept = []
        accept = lambda reader, writer: kept.append(writer)
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x" * 1234)
        print(address[1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("blocking", flush=True)
        sys.stdin.readline()

    loop = tokioloop.TokioLoop()
    loop.run_until_complete(main())
"""


@contextlib.contextmanager
def service(directory, **environment):
    """A service in a process of its own; it blocks its loop when a line comes."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVICE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(directory)} | environment,
    )
    try:
        process.port = int(process.stdout.readline())
        yield process
    finally:
        process.kill()
        process.communicate()


def top(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tokioloop", "top", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"XDG_RUNTIME_DIR": str(directory)},
    )


def test_a_snapshot_shows_the_known_slow_callback_and_the_connection(tmp_path):
    with service(tmp_path, TOKIOLOOP_CONSOLE="1") as process:
        done = top(tmp_path, process.pid, "--json", "--interval", "0.2")
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
    assert shown["state"] == "running"
    slowest = shown["callbacks"][0]
    assert slowest["name"].endswith("sluggish")
    assert slowest["max"] >= 0.01
    assert shown["rates"]["turns"] > 0
    assert shown["rates"]["loop_lag_p99_seconds"] > 0
    assert shown["rates"]["turn_duration_p99_seconds"] >= 0.01
    (task,) = [task for task in shown["tasks"] if task["name"] == "the-slow-one"]
    assert task["line"].endswith("in sluggish")
    peers = {connection["peer"]: connection for connection in shown["connections"]}
    client = peers[f"127.0.0.1:{process.port}"]
    assert client["bytes_queued"] == 0
    if sys.platform.startswith("linux"):
        # The kernel numbers the beginning and the end of a connection like bytes.
        assert 1234 <= client["bytes_sent"] <= 1236
    assert shown["timer_count"] >= 1


def test_a_process_without_a_console_or_life_is_said_to_be_so(tmp_path):
    with service(tmp_path) as process:
        done = top(tmp_path, process.pid)
        assert done.returncode == 1
        assert "TOKIOLOOP_CONSOLE=1" in done.stderr
    done = top(tmp_path, process.pid, "--json")
    assert done.returncode == 1
    assert "no process" in json.loads(done.stdout)["message"]


def test_a_stuck_loop_is_said_to_be_stuck(tmp_path):
    with service(tmp_path, TOKIOLOOP_CONSOLE="1") as process:
        process.stdin.write("block\n")
        process.stdin.flush()
        assert process.stdout.readline() == "blocking\n"
        done = top(tmp_path, process.pid, "--json", "--interval", "0.1")
        assert done.returncode == 3
        answer = json.loads(done.stdout)
    assert answer["state"] == "stuck"
    assert "no answer for" in answer["message"]


def test_a_killed_process_ends_the_console(tmp_path):
    with service(tmp_path, TOKIOLOOP_CONSOLE="1") as process:
        console = subprocess.Popen(
            [sys.executable, "-m", "tokioloop", "top", str(process.pid), "--interval", "0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        )
        assert "tokioloop, process" in console.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        _, text = console.communicate(timeout=10)
    assert console.returncode == 1
    assert "the process has ended" in text or "closed" in text


def test_a_console_that_closes_before_it_is_asked_is_said_to_have(monkeypatch, capsys):
    ours, theirs = socket.socketpair()
    theirs.close()
    monkeypatch.setattr(top_command, "_attach", lambda pid, number: ours)
    options = argparse.Namespace(pid=os.getpid(), loop=0, interval=1.0, json=True)
    assert top_command.run(options) == top_command.UNREACHABLE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["state"], answer["message"]) == ("closed", "the loop has closed its console")


def attach(path, interval=0.05):
    """A console of the test's own; returns a function that reads the next snapshot."""
    attached = socket.socket(socket.AF_UNIX)
    attached.settimeout(10)
    attached.connect(path)
    attached.sendall(json.dumps({"interval": interval}).encode() + b"\n")
    lines = attached.makefile()
    return attached, lambda: json.loads(lines.readline())


def test_several_consoles_attach_and_the_last_ends_the_measurement(make_loop, tmp_path):
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))
    assert loop.start_console() == path

    async def main():
        before = loop.metrics()
        assert before["detailed"] is False
        consoles = [await asyncio.to_thread(attach, path) for _ in range(3)]
        for _, read in consoles:
            snapshot = await asyncio.to_thread(read)
            assert snapshot["pid"] == os.getpid()
            assert snapshot["connection_count"] == 0, "consoles do not count themselves"
        assert loop.metrics()["detailed"] is True
        for attached, _ in consoles:
            attached.shutdown(socket.SHUT_RDWR)
            attached.close()
        while loop.metrics()["detailed"]:
            await asyncio.sleep(0.001)
        after = loop.metrics()
        assert after["connections_open"] == 0
        assert after["timers_scheduled"] == before["timers_scheduled"]
        await loop.shutdown_default_executor()

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    loop.stop_console()
    assert not os.path.exists(path)


def test_over_tls_the_protocol_shown_is_the_programs_own(make_loop, tmp_path):
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))

    class Served(asyncio.Protocol):
        def data_received(self, data):
            received.set_result(data)

    async def main():
        nonlocal received
        received = loop.create_future()
        server = await loop.create_server(Served, "127.0.0.1", 0, ssl=server_context())
        attached, read = await asyncio.to_thread(attach, path)
        shown = await asyncio.to_thread(read)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *address, ssl=client_context()
        )
        transport.write(b"x")
        await received
        now = time.monotonic()
        while shown["time"] < now:
            shown = await asyncio.to_thread(read)
        loop.stop_console()
        attached.close()
        transport.abort()
        server.close()
        while loop.metrics()["connections_open"]:
            await asyncio.sleep(0)
        await loop.shutdown_default_executor()
        return shown

    received = None
    shown = loop.run_until_complete(asyncio.wait_for(main(), 20))
    protocols = {connection["protocol"] for connection in shown["connections"]}
    served = f"{__name__}.{Served.__qualname__}"
    assert protocols == {served, "asyncio.protocols.Protocol"}
    names = {callback["name"] for callback in shown["callbacks"]}
    assert served in names
    assert not any(name.endswith(".SSLProtocol") for name in names)


def test_only_the_owner_may_open_the_socket(make_loop, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = make_loop().start_console()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    other = make_loop().start_console()
    assert other != path
    os.chmod(os.path.dirname(path), 0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        make_loop().start_console()


def test_a_path_is_used_again_where_nobody_listens(make_loop, tmp_path, monkeypatch):
    from tokioloop.observe import console

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first = make_loop()
    path = first.start_console()
    # As a full queue looks on macOS.
    monkeypatch.setattr(console, "_is_alive", lambda path: False)
    assert make_loop().start_console() != path
    first.stop_console()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    assert make_loop().start_console() == path


def test_loops_of_several_threads_open_their_consoles_at_once(make_loop, tmp_path, monkeypatch):
    from tokioloop.observe import console

    def listen_slowly(path):
        time.sleep(0.01)  # whoever else is about to choose a path chooses it meanwhile
        return listen(path)

    def open_one():
        loop = make_loop()
        with everybody:
            everybody.n += 1
            everybody.notify_all()
            everybody.wait_for(lambda: everybody.n == 4, 10)
        return loop.start_console()

    listen = console._listen
    monkeypatch.setattr(console, "_listen", listen_slowly)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    everybody = threading.Condition()
    everybody.n = 0
    with ThreadPoolExecutor(4) as threads:
        paths = [future.result(10) for future in [threads.submit(open_one) for _ in range(4)]]
    assert len(set(paths)) == 4
    for path in paths:
        attach(path)[0].close()


def test_a_console_leaves_the_umask_of_the_process_alone(make_loop, tmp_path, monkeypatch):
    """It is that of all threads: files that others make meanwhile would be closed to their group."""
    before = os.umask(0o027)
    os.umask(before)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    path = make_loop().start_console(str(tmp_path / "console.sock"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_nobody_can_connect_before_the_socket_is_the_owners_alone(make_loop, tmp_path, monkeypatch):
    path = str(tmp_path / "console.sock")
    refused = []

    def chmod(path, mode):
        with pytest.raises(ConnectionRefusedError):
            attach(path)
        refused.append(mode)

    monkeypatch.setattr(os, "chmod", chmod)
    make_loop().start_console(path)
    assert refused == [0o600]


def test_a_console_that_closes_frees_its_path_while_it_still_listens(
    make_loop, tmp_path, monkeypatch
):
    """A socket that does not listen is one that was left behind: another loop takes its path."""
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))
    stop_serving, free = loop._stop_serving, []

    def stop(sock):
        free.append(not os.path.exists(path))
        stop_serving(sock)

    monkeypatch.setattr(loop, "_stop_serving", stop)
    loop.stop_console()
    assert free == [True]


def test_another_thread_is_refused_before_anything_is_made_or_ended(make_loop, tmp_path):
    loop = make_loop()
    path = str(tmp_path / "console.sock")

    async def main():
        with pytest.raises(RuntimeError, match=r"start_console\(\) was called from another thread"):
            await asyncio.to_thread(loop.start_console, path)
        assert not os.path.exists(path)
        loop.start_console(path)
        attached, read = await asyncio.to_thread(attach, path)
        await asyncio.to_thread(read)
        with pytest.raises(RuntimeError, match=r"stop_console\(\) was called from another thread"):
            await asyncio.to_thread(loop.stop_console)
        assert "pid" in await asyncio.to_thread(read), "the console goes on"
        attached.close()
        await loop.shutdown_default_executor()

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    loop.stop_console()
    assert not os.path.exists(path)


def test_a_closed_loop_opens_no_console(make_loop, tmp_path):
    loop = make_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.start_console(str(tmp_path / "console.sock"))
    assert os.listdir(tmp_path) == []


def test_another_user_is_turned_away(make_loop, tmp_path, monkeypatch, caplog):
    from tokioloop.observe import console

    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))
    monkeypatch.setattr(console, "_peer_uid", lambda sock: os.getuid() + 1)

    async def main():
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()

    loop.run_until_complete(asyncio.wait_for(main(), 10))
    assert any("may not attach" in record.getMessage() for record in caplog.records)
    assert loop.metrics()["detailed"] is False


@pytest.mark.parametrize(
    "request_line",
    [
        *(b"hello\n", b"{}\n", b"[]\n", b"[" * 4000 + b"\n"),
        *(b'{"interval": "soon"}\n', b'{"interval": NaN}\n', b'{"interval": "nan"}\n'),
        b'{"interval": 1' + b"0" * 400 + b"}\n",
    ],
    ids=lambda line: line[:20].decode().strip(),
)
def test_a_request_that_is_none_is_answered_with_an_error(make_loop, tmp_path, request_line):
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))

    async def main():
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request_line)
        answer = json.loads(await reader.read())
        writer.close()
        return answer

    assert "interval" in loop.run_until_complete(asyncio.wait_for(main(), 10))["error"]


def test_a_loop_may_close_with_a_console_attached(make_loop, tmp_path):
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))

    async def main():
        attached, read = await asyncio.to_thread(attach, path)
        await asyncio.to_thread(read)
        await loop.shutdown_default_executor()
        return attached

    attached = loop.run_until_complete(asyncio.wait_for(main(), 10))
    loop.close()
    assert not os.path.exists(path)
    attached.settimeout(10)
    while attached.recv(65536):
        pass
    attached.close()


def test_whoever_was_accepted_just_before_the_console_closed_is_turned_away(make_loop, tmp_path):
    """A connection is accepted a turn before its protocol hears of it."""
    loop = make_loop()
    path = loop.start_console(str(tmp_path / "console.sock"))

    async def main():
        timers = loop.metrics()["timers_scheduled"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.setblocking(False)
            while not loop.metrics()["connections_accepted"]:
                await asyncio.sleep(0)
            loop.stop_console()
            loop.start_console(path)
            attached, read = await asyncio.to_thread(attach, path)
            await asyncio.to_thread(read)
            assert await loop.sock_recv(client, 1) == b""
            assert loop.metrics()["detailed"] is True, "that of the other console goes on"
        loop.stop_console()
        attached.close()
        assert loop.metrics()["detailed"] is False
        assert loop.metrics()["connections_open"] == 0
        assert loop.metrics()["timers_scheduled"] == timers
        await loop.shutdown_default_executor()

    loop.run_until_complete(asyncio.wait_for(main(), 10))


def test_a_console_that_cannot_be_opened_does_not_stop_the_program(
    make_loop, tmp_path, monkeypatch, caplog
):
    from tokioloop.observe import loop_methods

    monkeypatch.setattr(loop_methods, "_console_wanted", True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * 50)))
    assert make_loop().run_until_complete(asyncio.sleep(0, "done")) == "done"
    assert any("no console" in record.getMessage() for record in caplog.records)


def test_consoles_are_counted_by_their_numbers(make_loop, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    opened = [make_loop().start_console() for _ in range(12)]
    make_loop().start_console(f"{os.path.dirname(opened[0])}/{os.getpid()}-named.sock")
    assert list(map(str, sockets_of(os.getpid())))[:-1] == opened


@pytest.mark.parametrize(
    "arguments",
    [("--interval", "nan"), ("--interval", "inf"), ("--interval=-1",), ("--loop", "-1")],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused(tmp_path, arguments):
    done = top(tmp_path, os.getpid(), *arguments)
    assert done.returncode == 2
    assert f"argument {arguments[0].partition('=')[0]}: " in done.stderr


def test_quantiles_are_of_the_time_between_two_snapshots():
    before = {"bounds": [1.0, 2.0], "counts": [90, 0, 0], "max": 0.5}
    now = {"bounds": [1.0, 2.0], "counts": [90, 98, 2], "max": 7.0}
    assert quantile_between(before, now, 0.5) == 2.0
    assert quantile_between(before, now, 0.99) == 7.0
    assert quantile_between(now, now, 0.99) == 0.0
