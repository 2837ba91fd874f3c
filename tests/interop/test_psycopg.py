"""psycopg 3 against PostgreSQL: libpq owns the socket, the loop only watches its descriptor."""

from __future__ import annotations

import asyncio

import pytest
from interop_support.loops import require_loop_under_test
from interop_support.postgres import Postgres
from interop_support.waiting import until

psycopg = pytest.importorskip("psycopg", exc_type=ImportError)


async def connect(server: Postgres, via: str = "tcp") -> psycopg.AsyncConnection:
    require_loop_under_test()
    return await psycopg.AsyncConnection.connect(server.dsn(via), autocommit=True)


@pytest.mark.parametrize("via", ["tcp", "unix", "tls"])
def test_queries_transactions_and_server_cursors(run, postgres_server, via) -> None:
    async def main() -> None:
        async with await connect(postgres_server, via) as connection:
            await connection.execute("create temp table numbers (n int)")
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with connection.transaction():
                    await connection.execute("insert into numbers values (0)")
                    await connection.execute("select 1 / 0")
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "insert into numbers values (%s)", [(n,) for n in range(500)]
                )
            async with connection.transaction(), connection.cursor(name="scan") as cursor:
                cursor.itersize = 50
                await cursor.execute("select n from numbers order by n")
                assert [row[0] async for row in cursor] == list(range(500))
            big = "x" * 3_000_000
            (echoed,) = await (await connection.execute("select %s::text", (big,))).fetchone()
            assert echoed == big

    run(main)


def test_pipeline_mode_keeps_the_order(run, postgres_server) -> None:
    async def main() -> None:
        async with await connect(postgres_server) as connection, connection.pipeline():
            cursors = [await connection.execute("select %s::int", (n,)) for n in range(200)]
            answers = [(await cursor.fetchone())[0] for cursor in cursors]
            assert answers == list(range(200))

    run(main)


def test_copy_in_and_out(run, postgres_server) -> None:
    async def main() -> None:
        async with await connect(postgres_server) as connection:
            await connection.execute("create temp table copied (n int, v text)")
            cursor = connection.cursor()
            async with cursor.copy("copy copied from stdin") as copy:
                for n in range(5000):
                    await copy.write_row((n, "v" * 100))
            async with cursor.copy("copy (select n, v from copied order by n) to stdout") as copy:
                copy.set_types(["int4", "text"])
                rows = [row async for row in copy.rows()]
            assert rows == [(n, "v" * 100) for n in range(5000)]

    run(main)


def test_notifications_arrive_in_order(run, postgres_server) -> None:
    async def main() -> None:
        async with (
            await connect(postgres_server) as listener,
            await connect(postgres_server, "unix") as sender,
        ):
            await listener.execute("listen psycopg_news")

            async def collect() -> list[str]:
                received = []
                async for event in listener.notifies():
                    if event.payload == "end":
                        return received
                    received.append(event.payload)
                raise AssertionError("the notifications ended early")

            collecting = asyncio.create_task(collect())
            for payload in [*map(str, range(50)), "end"]:
                await sender.execute("select pg_notify('psycopg_news', %s)", (payload,))
            assert await collecting == [str(n) for n in range(50)]

    run(main)


def test_pool_gives_each_task_its_own_answer(run, postgres_server) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", exc_type=ImportError)

    async def main() -> None:
        pool = psycopg_pool.AsyncConnectionPool(
            postgres_server.dsn("tcp"), min_size=2, max_size=5, open=False
        )
        async with pool:

            async def ask(n: int) -> int:
                async with pool.connection() as connection:
                    cursor = await connection.execute("select %s::int, pg_backend_pid()", (n,))
                    answer, backend = await cursor.fetchone()
                    assert answer == n
                    return backend

            backends = await asyncio.gather(*map(ask, range(150)))
            assert 1 <= len(set(backends)) <= 5

    run(main)


def test_cancelled_query_is_cancelled_on_the_server(run, postgres_server) -> None:
    async def main() -> None:
        async with (
            await connect(postgres_server) as connection,
            await connect(postgres_server) as observer,
        ):
            backend = connection.info.backend_pid

            sleeping = asyncio.create_task(connection.execute("select pg_sleep(60)"))
            await until_state(observer, backend, "active")
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            await until_state(observer, backend, "idle")

            sleeping = asyncio.create_task(connection.execute("select pg_sleep(60)"))
            await until_state(observer, backend, "active")
            connection.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled):
                await sleeping
            assert await (await connection.execute("select 42")).fetchone() == (42,)

    run(main)


def test_idle_descriptors_survive_the_churn_of_others(run, postgres_server) -> None:
    """A connection that was watched, is idle now and shares the loop with many that come and go."""

    async def main() -> None:
        async with await connect(postgres_server, "tls") as idle:
            for _ in range(15):
                async with await connect(postgres_server, "unix") as other:
                    await other.execute("select 1")
            assert await (await idle.execute("select 'still here'")).fetchone() == ("still here",)

    run(main)


def test_a_terminated_backend_raises(run, postgres_server) -> None:
    async def main() -> None:
        victim = await connect(postgres_server)
        async with await connect(postgres_server) as killer:
            query = asyncio.create_task(victim.execute("select pg_sleep(60)"))
            await until_state(killer, victim.info.backend_pid, "active")
            await killer.execute("select pg_terminate_backend(%s)", (victim.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                await query
            assert victim.broken
            await victim.close()

    run(main)


async def until_state(observer: psycopg.AsyncConnection, backend: int, state: str) -> None:
    """Wait until the server says that a backend is in `state`."""
    query = "select state from pg_stat_activity where pid = %s"

    async def reached() -> bool:
        return await (await observer.execute(query, (backend,))).fetchone() == (state,)

    await until(reached)
