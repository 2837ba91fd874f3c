"""redis-py against Redis: streams over TCP, TLS and Unix sockets, pipelines and subscriptions."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from interop_support.loops import require_loop_under_test
from interop_support.redis_server import RedisServer
from interop_support.waiting import until

redis_asyncio = pytest.importorskip("redis.asyncio", exc_type=ImportError)


def client(server: RedisServer, via: str = "tcp", **options: object) -> redis_asyncio.Redis:
    require_loop_under_test()
    return redis_asyncio.from_url(server.url(via), **options)


@pytest.fixture
def key() -> str:
    """A key of the test's own: the server is shared by the session."""
    return f"interop:{uuid.uuid4().hex}"


@pytest.mark.parametrize("via", ["tcp", "unix", "tls"])
def test_commands_and_large_values(run, redis, key, via) -> None:
    async def main() -> None:
        async with client(redis, via) as connection:
            assert await connection.ping()
            big = bytes(range(256)) * 20_000
            await connection.set(key, big)
            assert await connection.get(key) == big
            await connection.delete(key)
            assert await connection.get(key) is None

    run(main)


@pytest.mark.parametrize("transaction", [True, False], ids=["multi", "plain"])
def test_a_pipeline_answers_in_order(run, redis, key, transaction) -> None:
    async def main() -> None:
        async with (
            client(redis, "unix") as connection,
            connection.pipeline(transaction=transaction) as pipeline,
        ):
            for _ in range(2000):
                pipeline.incr(key)
            assert await pipeline.execute() == list(range(1, 2001))

    run(main)


def test_a_watched_key_aborts_the_transaction(run, redis, key) -> None:
    async def main() -> None:
        async with client(redis) as connection, connection.pipeline() as pipeline:
            await pipeline.watch(key)
            await connection.set(key, "changed meanwhile")
            pipeline.multi()
            pipeline.set(key, "mine")
            with pytest.raises(redis_asyncio.WatchError):
                await pipeline.execute()
            assert await connection.get(key) == b"changed meanwhile"

    run(main)


def test_published_messages_arrive_in_order(run, redis, key) -> None:
    async def main() -> None:
        async with client(redis) as publisher, client(redis, "tls") as subscriber:
            pubsub = subscriber.pubsub(ignore_subscribe_messages=True)
            async with pubsub:
                await pubsub.subscribe(key)
                await pubsub.psubscribe(f"{key}:*")

                async def collect() -> list[bytes]:
                    received = []
                    async for message in pubsub.listen():
                        if message["data"] == b"end":
                            return received
                        received.append(message["data"])
                    raise AssertionError("the subscription ended early")

                await until(lambda: subscribed(publisher, key))
                collecting = asyncio.create_task(collect())
                for n in range(200):
                    await publisher.publish(key if n % 2 else f"{key}:even", str(n))
                await publisher.publish(key, "end")
                assert await collecting == [str(n).encode() for n in range(200)]
                assert await pubsub.get_message(timeout=0.01) is None

    run(main)


def test_a_cancelled_blocking_pop_loses_nothing(run, redis, key) -> None:
    async def main() -> None:
        async with client(redis) as connection:
            popping = asyncio.create_task(connection.blpop([key], timeout=60))
            await until(lambda: has_blocked_clients(connection))
            popping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await popping
            await until(lambda: has_no_blocked_clients(connection))
            await connection.rpush(key, "kept")
            assert await connection.lpop(key) == b"kept"

    run(main)


def test_many_tasks_share_a_small_pool(run, redis, key) -> None:
    async def main() -> None:
        pool = redis_asyncio.BlockingConnectionPool.from_url(redis.url("tcp"), max_connections=4)
        async with redis_asyncio.Redis.from_pool(pool) as connection:

            async def set_and_get(n: int) -> None:
                await connection.set(f"{key}:{n}", n)
                assert await connection.get(f"{key}:{n}") == str(n).encode()

            await asyncio.gather(*map(set_and_get, range(200)))

    run(main)


def test_a_killed_client_reconnects(run, redis, key) -> None:
    async def main() -> None:
        async with client(redis, single_connection_client=True) as victim, client(redis) as killer:
            first = await victim.client_id()
            assert await killer.client_kill_filter(_id=first) == 1
            while True:
                try:
                    second = await victim.client_id()
                except redis_asyncio.ConnectionError:
                    continue
                break
            assert second != first
            await victim.set(key, "again")
            assert await killer.get(key) == b"again"

    run(main)


async def subscribed(connection: redis_asyncio.Redis, channel: str) -> bool:
    ((_, subscribers),) = await connection.pubsub_numsub(channel)
    return subscribers > 0


async def has_blocked_clients(connection: redis_asyncio.Redis) -> bool:
    return (await connection.info("clients"))["blocked_clients"] > 0


async def has_no_blocked_clients(connection: redis_asyncio.Redis) -> bool:
    return not await has_blocked_clients(connection)
