"""aiofiles: file operations through the loop's executor, from the default one and from another."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop_support.loops import require_loop_under_test

pytest.importorskip("aiofiles", exc_type=ImportError)

import aiofiles
import aiofiles.os
import aiofiles.tempfile


def test_reads_and_writes_of_every_kind(run, tmp_path) -> None:
    async def main() -> None:
        require_loop_under_test()
        text = tmp_path / "lines.txt"
        async with aiofiles.open(text, "w") as file:
            await file.writelines(f"line {n}\n" for n in range(1000))
        async with aiofiles.open(text) as file:
            assert await file.readline() == "line 0\n"
            assert [line async for line in file] == [f"line {n}\n" for n in range(1, 1000)]
        content = bytes(range(256)) * 20_000
        async with aiofiles.open(tmp_path / "big", "wb+") as file:
            await file.write(content)
            await file.seek(1_000_000)
            assert await file.tell() == 1_000_000
            assert await file.read(1000) == content[1_000_000:1_001_000]
            await file.truncate(10)
        assert (await aiofiles.os.stat(tmp_path / "big")).st_size == 10
        with pytest.raises(FileNotFoundError):
            await aiofiles.os.remove(tmp_path / "absent")

    run(main)


def test_many_files_at_once(run, tmp_path) -> None:
    async def main() -> None:
        async def write_and_read(n: int) -> None:
            async with aiofiles.open(tmp_path / f"file-{n}", "w") as file:
                await file.write(f"content {n}")
            async with aiofiles.open(tmp_path / f"file-{n}") as file:
                assert await file.read() == f"content {n}"

        await asyncio.gather(*map(write_and_read, range(200)))
        assert len(await aiofiles.os.listdir(tmp_path)) == 200

    run(main)


def test_an_executor_of_the_users_choice(run, tmp_path) -> None:
    async def main() -> None:
        names: list[str] = []
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="chosen") as executor:
            path = tmp_path / "file"
            async with aiofiles.open(path, "w", executor=executor, loop=loop) as file:
                await file.write("from the executor")
            await loop.run_in_executor(
                executor, lambda: names.append(threading.current_thread().name)
            )
        assert path.read_text() == "from the executor"
        assert names == ["chosen_0"]

    run(main)


def test_temporary_files(run) -> None:
    async def main() -> None:
        async with aiofiles.tempfile.TemporaryDirectory() as directory:
            assert await aiofiles.os.path.isdir(directory)
            async with aiofiles.tempfile.NamedTemporaryFile("w+", dir=directory) as file:
                await file.write("temporary")
                await file.seek(0)
                assert await file.read() == "temporary"
        assert not await aiofiles.os.path.exists(directory)

    run(main)
