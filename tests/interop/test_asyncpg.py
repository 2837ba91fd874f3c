"""asyncpg against PostgreSQL: a protocol in Cython, with buffers of its own, on the transports."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from interop_support.loops import require_loop_under_test
from interop_support.postgres import Postgres
from interop_support.waiting import until

asyncpg = pytest.importorskip("asyncpg", exc_type=ImportError)


def parameters(server: Postgres, via: str = "tcp") -> dict[str, Any]:
    """`asyncpg.connect` arguments; it reads no libpq strings of the `host=` form."""
    pairs = dict(pair.split("=", 1) for pair in server.dsn(via).split())
    arguments: dict[str, Any] = {
        "host": pairs["host"],
        "port": int(pairs["port"]),
        "user": pairs["user"],
        "database": pairs["dbname"],
        "ssl": False,
    }
    if via == "tls":
        import ssl

        arguments["ssl"] = ssl.create_default_context(cafile=str(server.authority))
    return arguments


@pytest.mark.parametrize("via", ["tcp", "unix", "tls"])
def test_queries_transactions_and_cursors(run, postgres_server, via) -> None:
    async def main() -> None:
        require_loop_under_test()
        connection = await asyncpg.connect(**parameters(postgres_server, via))
        try:
            encrypted = await connection.fetchval(
                "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
            )
            assert encrypted == (via == "tls")
            await connection.execute("create temp table numbers (n int, label text)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("insert into numbers values (0, 'rolled back')")
                    await connection.execute("select 1 / 0")
            statement = await connection.prepare("insert into numbers values ($1, $2)")
            await statement.executemany([(n, f"row {n}") for n in range(1000)])
            async with connection.transaction():
                seen = [
                    row["n"] async for row in connection.cursor("select n from numbers order by n")
                ]
            assert seen == list(range(1000))
            # One value far larger than any socket buffer, both ways.
            big = "x" * 3_000_000
            assert await connection.fetchval("select $1::text || 'y'", big) == big + "y"
        finally:
            await connection.close()

    run(main)


def test_copy_in_and_out(run, postgres_server) -> None:
    async def rows_as_csv() -> AsyncIterator[bytes]:
        for n in range(5000):
            yield f"{n},{'v' * 100}\n".encode()

    def records() -> Iterator[tuple[int, str]]:
        return ((n, "r" * 50) for n in range(5000, 10_000))

    async def main() -> None:
        connection = await asyncpg.connect(**parameters(postgres_server))
        try:
            await connection.execute("create temp table copied (n int, v text)")
            await connection.copy_to_table("copied", source=rows_as_csv(), format="csv")
            await connection.copy_records_to_table("copied", records=records())
            count, total = await connection.fetchrow("select count(*), sum(n) from copied")
            assert (count, total) == (10_000, sum(range(10_000)))

            out = io.BytesIO()
            await connection.copy_from_query(
                "select n, v from copied order by n", output=out, format="csv"
            )
            lines = out.getvalue().splitlines()
            assert len(lines) == 10_000
            assert lines[0] == b"0," + b"v" * 100
            assert lines[-1] == b"9999," + b"r" * 50
        finally:
            await connection.close()

    run(main)


def test_a_failing_copy_source_leaves_the_connection_usable(run, postgres_server) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"1\n"
        raise LookupError("the source broke")

    async def main() -> None:
        connection = await asyncpg.connect(**parameters(postgres_server))
        try:
            await connection.execute("create temp table copied (n int)")
            with pytest.raises(LookupError, match="the source broke"):
                await connection.copy_to_table("copied", source=broken())
            assert await connection.fetchval("select count(*) from copied") == 0
        finally:
            await connection.close()

    run(main)


def test_notifications_arrive_in_order(run, postgres_server) -> None:
    async def main() -> None:
        listener = await asyncpg.connect(**parameters(postgres_server))
        sender = await asyncpg.connect(**parameters(postgres_server, "unix"))
        try:
            received: asyncio.Queue[str] = asyncio.Queue()
            await listener.add_listener("news", lambda *event: received.put_nowait(event[3]))
            for n in range(100):
                await sender.execute("select pg_notify('news', $1)", str(n))
            assert [await received.get() for _ in range(100)] == [str(n) for n in range(100)]
        finally:
            await listener.close()
            await sender.close()

    run(main)


def test_pool_gives_each_task_its_own_answer(run, postgres_server) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(
            **parameters(postgres_server), min_size=2, max_size=6
        ) as pool:

            async def ask(n: int) -> int:
                async with pool.acquire() as connection:
                    answer, backend = await connection.fetchrow(
                        "select $1::int, pg_backend_pid()", n
                    )
                    assert answer == n
                    return backend

            backends = await asyncio.gather(*map(ask, range(200)))
            assert 1 <= len(set(backends)) <= 6

    run(main)


def test_cancelled_query_is_cancelled_on_the_server(run, postgres_server) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(**parameters(postgres_server))
        observer = await asyncpg.connect(**parameters(postgres_server))
        try:
            backend = connection.get_server_pid()
            sleeping = asyncio.create_task(connection.execute("select pg_sleep(60)"))
            await until_state(observer, backend, "active")
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            await until_state(observer, backend, "idle")
            assert await connection.fetchval("select 42") == 42

            with pytest.raises(asyncio.TimeoutError):
                await connection.execute("select pg_sleep(60)", timeout=0.05)
            assert await connection.fetchval("select 43") == 43
        finally:
            await connection.close()
            await observer.close()

    run(main)


def test_a_terminated_backend_is_reported(run, postgres_server) -> None:
    async def main() -> None:
        victim = await asyncpg.connect(**parameters(postgres_server, "tls"))
        killer = await asyncpg.connect(**parameters(postgres_server))
        try:
            terminated = asyncio.Event()
            victim.add_termination_listener(lambda connection: terminated.set())
            query = asyncio.create_task(victim.execute("select pg_sleep(60)"))
            await until_state(killer, victim.get_server_pid(), "active")
            await killer.execute("select pg_terminate_backend($1)", victim.get_server_pid())
            with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                await query
            await terminated.wait()
            assert victim.is_closed()
        finally:
            victim.terminate()
            await killer.close()

    run(main)


@pytest.mark.parametrize("via", ["tcp", "unix", "tls"])
def test_connects_cancelled_at_every_turn_leave_nothing_behind(run, postgres_server, via) -> None:
    async def main() -> None:
        for turns in range(12):
            attempt = asyncio.create_task(asyncpg.connect(**parameters(postgres_server, via)))
            for _ in range(turns):
                await asyncio.sleep(0)
            attempt.cancel()
            try:
                connection = await attempt
            except asyncio.CancelledError:
                pass
            else:
                connection.terminate()
        survivor = await asyncpg.connect(**parameters(postgres_server, via))
        assert await survivor.fetchval("select 'alive'") == "alive"
        await survivor.close()

    # asyncpg forgets a future of its own when a TLS upgrade is cancelled.
    run(main, known_report="unexpected connection_lost")


async def until_state(observer: Any, backend: int, state: str) -> None:
    """Wait until the server says that a backend is in `state`."""
    query = "select state = $2 from pg_stat_activity where pid = $1"
    await until(lambda: observer.fetchval(query, backend, state))
