"""openssl s_client and s_server as foreign TLS peers: resumption, STARTTLS, refusals."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from interop_support.certificates import CLIENT_NAME, Certificates
from interop_support.loops import require_loop_under_test
from interop_support.processes import find_program

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PAYLOAD = b"".join(b"%07d\n" % n for n in range(100_000))  # 800 KB in lines


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo until the peer closes or sends a line `bye`."""
    require_loop_under_test()
    while (line := await reader.readline()) not in (b"", b"bye\n"):
        writer.write(b"echo " + line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None, handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


class OpenSSL:
    """One openssl command under the loop's child watching, its output merged into one stream."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = b""

    @classmethod
    async def start(cls, *arguments: object, directory: Path | None = None) -> OpenSSL:
        process = await asyncio.create_subprocess_exec(
            find_program("openssl", package="openssl"), *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            cwd=directory,
        )  # fmt: skip
        return cls(process)

    def send(self, data: bytes) -> None:
        self.process.stdin.write(data)

    async def read_until(self, pattern: bytes) -> re.Match[bytes]:
        """Read output until it matches; all of it stays in `output`.

        s_client puts what it receives in the middle of its own reports, so a pattern for received
        data must not ask for the start of a line.
        """
        while (match := re.search(pattern, self.output, re.MULTILINE)) is None:
            part = await self.process.stdout.read(65_536)
            assert part, self.output
            self.output += part
        return match

    async def until_it_ends(self) -> tuple[int, bytes]:
        """The exit status and output of a command that ends by itself, its input still open."""
        self.output += await self.process.stdout.read()
        return await self.finish()

    async def finish(self) -> tuple[int, bytes]:
        """Close its input; the exit status and everything it printed."""
        self.process.stdin.close()
        rest = await self.process.stdout.read()
        return await self.process.wait(), self.output + rest


def client_arguments(certificates: Certificates, port: int) -> list[object]:
    return ["s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certificates.authority,
            "-verify_return_error", "-servername", "localhost"]  # fmt: skip


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_s_client_is_echoed(run, certificates, version) -> None:
    async def main() -> None:
        context = certificates.server_context()
        context.set_alpn_protocols(["interop"])
        async with serving(context, echo_lines) as port:
            arguments = client_arguments(certificates, port)
            client = await OpenSSL.start(*arguments, f"-{version}", "-alpn", "interop")
            for n in range(20):
                client.send(b"line %d\n" % n)
                await client.read_until(rb"echo line %d\n" % n)
            client.send(b"bye\n")
            status, output = await client.finish()
            assert status == 0, output
            assert b"Verify return code: 0 (ok)" in output
            assert b"ALPN protocol: interop" in output

    run(main)


def test_s_client_reads_a_large_answer_to_its_end(run, certificates) -> None:
    async def send_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PAYLOAD)
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with serving(certificates.server_context(), send_all) as port:
            client = await OpenSSL.start(*client_arguments(certificates, port), "-quiet")
            rest = await client.process.stdout.read()
            assert await client.process.wait() == 0
            client.process.stdin.close()
            assert rest.endswith(PAYLOAD)

    run(main)


def test_s_client_resumes_its_session(run, certificates, tmp_path) -> None:
    reused: list[bool] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reused.append(writer.get_extra_info("ssl_object").session_reused)
        await echo_lines(reader, writer)

    async def main() -> None:
        session = tmp_path / "session.pem"
        async with serving(certificates.server_context(), record) as port:
            for option in ("-sess_out", "-sess_in"):
                arguments = client_arguments(certificates, port)
                client = await OpenSSL.start(*arguments, "-tls1_2", option, session)
                client.send(b"hello\n")
                await client.read_until(rb"echo hello\n")
                client.send(b"bye\n")
                status, output = await client.finish()
                assert status == 0, output
            assert reused == [False, True]

    run(main)


def test_s_client_certificates(run, certificates) -> None:
    async def name(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        ((_, common_name),) = writer.get_extra_info("peercert")["subject"][0]
        writer.write(f"you are {common_name}\n".encode())
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        context = certificates.server_context(client_required=True)
        async with serving(context, name) as port:
            arguments = client_arguments(certificates, port)
            pair = ["-cert", certificates.client.certificate, "-key", certificates.client.key]
            client = await OpenSSL.start(*arguments, *pair)
            client.send(b"who am I\n")
            await client.read_until(f"you are {CLIENT_NAME}\n".encode())
            await client.finish()

            stranger = await OpenSSL.start(*arguments)
            status, output = await stranger.until_it_ends()
            assert status != 0, output

    run(main)


def test_renegotiation_is_refused_and_the_server_lives_on(run, certificates) -> None:
    async def main() -> None:
        async with serving(certificates.server_context(), echo_lines) as port:
            arguments = client_arguments(certificates, port)
            client = await OpenSSL.start(*arguments, "-tls1_2")
            client.send(b"before\n")
            await client.read_until(rb"echo before\n")
            client.send(b"R\n")  # s_client's command for renegotiation
            _, output = await client.finish()
            assert b"no renegotiation" in output

            survivor = await OpenSSL.start(*arguments)
            survivor.send(b"after\n")
            await survivor.read_until(rb"echo after\n")
            await survivor.finish()

    # The client answers the refusal with a fatal alert, which the stream's reader raises.
    run(main, known_report="ALERT_HANDSHAKE_FAILURE")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls is new in 3.11")
def test_starttls_as_a_mail_server(run, certificates) -> None:
    async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 interop ESMTP\r\n")
        assert (await reader.readline()).startswith(b"EHLO")
        writer.write(b"250-interop\r\n250 STARTTLS\r\n")
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.drain()
        await writer.start_tls(certificates.server_context())
        await echo_lines(reader, writer)

    async def main() -> None:
        async with serving(None, smtp) as port:
            client = await OpenSSL.start(*client_arguments(certificates, port), "-starttls", "smtp")
            client.send(b"through the upgraded stream\n")
            await client.read_until(rb"echo through the upgraded stream\n")
            client.send(b"bye\n")
            status, output = await client.finish()
            assert status == 0, output

    run(main)


@asynccontextmanager
async def s_server(
    certificates: Certificates, *arguments: str, directory: Path | None = None
) -> AsyncIterator[tuple[OpenSSL, int]]:
    """openssl as the server, on a port of its own choosing."""
    server = await OpenSSL.start(
        "s_server", "-accept", "127.0.0.1:0", "-cert", certificates.server.certificate,
        "-key", certificates.server.key, "-CAfile", certificates.authority, *arguments,
        directory=directory,
    )  # fmt: skip
    try:
        port = int((await server.read_until(rb"^ACCEPT \S*:(\d+)$")).group(1))
        yield server, port
    finally:
        if server.process.returncode is None:
            server.process.kill()
        await server.finish()


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_a_client_of_s_server(run, certificates, version) -> None:
    async def main() -> None:
        async with s_server(certificates, f"-{version}", "-rev", "-Verify", "1") as (_, port):
            context = certificates.client_context(with_certificate=True)
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            assert (
                writer.get_extra_info("ssl_object").version()
                == {
                    "tls1_2": "TLSv1.2",
                    "tls1_3": "TLSv1.3",
                }[version]
            )
            for n in range(100):
                writer.write(b"line %d\n" % n)
                assert await reader.readline() == (b"line %d" % n)[::-1] + b"\n"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_client_reads_a_file_from_s_server(run, certificates, tmp_path: Path) -> None:
    served = tmp_path / "served.txt"
    served.write_bytes(PAYLOAD)

    async def main() -> None:
        async with s_server(certificates, "-HTTP", directory=tmp_path) as (_, port):
            reader, writer = await asyncio.open_connection(
                "localhost", port, ssl=certificates.client_context()
            )
            writer.write(f"GET /{served.name} HTTP/1.0\r\n\r\n".encode())
            assert (await reader.read()).endswith(PAYLOAD)
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_client_refuses_a_server_of_the_wrong_name(run, certificates) -> None:
    async def main() -> None:
        async with s_server(certificates, "-rev") as (_, port):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(
                    "127.0.0.1", port, ssl=certificates.client_context(), server_hostname="other"
                )
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=certificates.client_context(), server_hostname="localhost"
            )
            writer.write(b"abc\n")
            assert await reader.readline() == b"cba\n"
            writer.close()
            await writer.wait_closed()

    run(main)
