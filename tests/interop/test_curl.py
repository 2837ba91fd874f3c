"""curl as a foreign TLS peer: asyncio streams serve it, and a child process of the loop runs it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from interop_support.certificates import CLIENT_NAME, Certificates
from interop_support.loops import require_loop_under_test
from interop_support.processes import find_program

DOWNLOAD = bytes(range(256)) * 32_768  # 8 MiB


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 enough for curl: keep-alive, `Expect: 100-continue`, GET and PUT."""
    require_loop_under_test()
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        request, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        writer.write(_response(request.split()[1], body, writer))
        await writer.drain()
    writer.close()
    with suppress(ConnectionError):  # curl may be gone before our close_notify is sent
        await writer.wait_closed()


def _response(path: str, body: bytes, writer: asyncio.StreamWriter) -> bytes:
    if path == "/download":
        content = DOWNLOAD
    elif path == "/upload":
        content = hashlib.sha256(body).hexdigest().encode()
    else:
        tls = writer.get_extra_info("ssl_object")
        certificate = writer.get_extra_info("peercert") or {"subject": ()}
        subject = {key: value for ((key, value),) in certificate["subject"]}
        facts = (tls.version(), tls.selected_alpn_protocol(), subject.get("commonName"))
        content = " ".join(map(str, facts)).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content


@asynccontextmanager
async def serving(
    certificates: Certificates, *, path: Path | None = None, client_required: bool = False
) -> AsyncIterator[str]:
    """An HTTPS server on an ephemeral port or on the Unix socket `path`; gives the base URL."""
    context = certificates.server_context(client_required=client_required)
    context.set_alpn_protocols(["http/1.1"])
    if path is None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        base = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(answer, path, ssl=context)
        base = "https://localhost"
    async with server:
        yield base


async def curl(
    certificates: Certificates, *arguments: str, statuses: tuple[int, ...] = (0,)
) -> bytes:
    """What curl prints; it must end with one of `statuses`."""
    process = await asyncio.create_subprocess_exec(
        find_program("curl", package="curl"),
        "--silent", "--show-error", "--fail", "--noproxy", "*",
        "--cacert", str(certificates.authority), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode in statuses, errors
    return output


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions_and_alpn(run, certificates, version) -> None:
    async def main() -> None:
        async with serving(certificates) as base:
            options = [f"--tlsv{version}", "--tls-max", version, "--http1.1"]
            facts = await curl(certificates, *options, f"{base}/facts")
            assert facts == f"TLSv{version} http/1.1 None".encode()

    run(main)


def test_downloads_side_by_side(run, certificates) -> None:
    async def main() -> None:
        async with serving(certificates) as base:
            outputs = await asyncio.gather(
                *(curl(certificates, f"{base}/download") for _ in range(4))
            )
            assert all(output == DOWNLOAD for output in outputs)
            # Two requests over one connection, the second after the first has been read.
            both = await curl(certificates, f"{base}/download", f"{base}/facts")
            assert both.startswith(DOWNLOAD + b"TLSv1.3")

    run(main)


def test_upload_after_100_continue(run, certificates, tmp_path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(DOWNLOAD)

    async def main() -> None:
        async with serving(certificates) as base:
            digest = await curl(
                certificates, "--header", "Expect: 100-continue",
                "--upload-file", str(source), f"{base}/upload",
            )  # fmt: skip
            assert digest == hashlib.sha256(DOWNLOAD).hexdigest().encode()

    run(main)


def test_tls_on_a_unix_socket(run, certificates, workspace) -> None:
    path = workspace / "curl.sock"

    async def main() -> None:
        async with serving(certificates, path=path) as base:
            output = await curl(certificates, "--unix-socket", str(path), f"{base}/download")
            assert output == DOWNLOAD

    run(main)


def test_client_certificates(run, certificates) -> None:
    # TLS 1.3 clients hear of a refused certificate only after their handshake: 52 is curl's
    # "empty reply", 56 its "failure in receiving", 35 its "handshake failed".
    async def main() -> None:
        async with serving(certificates, client_required=True) as base:
            pair = ["--cert", str(certificates.client.certificate),
                    "--key", str(certificates.client.key)]  # fmt: skip
            facts = await curl(certificates, *pair, f"{base}/facts")
            assert facts.decode().endswith(CLIENT_NAME)
            await curl(certificates, f"{base}/facts", statuses=(52, 56))
            await curl(certificates, "--tls-max", "1.2", f"{base}/facts", statuses=(35, 52, 56))

    run(main)


def test_a_client_that_does_not_trust_the_server(run, certificates) -> None:
    async def main() -> None:
        async with serving(certificates) as base:
            await curl(certificates, "--cacert", "/etc/ssl/certs/ca-certificates.crt",
                       f"{base}/facts", statuses=(60,))  # fmt: skip
            assert await curl(certificates, f"{base}/facts")

    run(main)


def test_a_client_that_stops_in_mid_download(run, certificates) -> None:
    """curl closes with data in flight (63: larger than it was told to accept)."""

    async def main() -> None:
        async with serving(certificates) as base:
            for _ in range(5):
                await curl(
                    certificates, "--max-filesize", "1000", f"{base}/download", statuses=(63,)
                )
            assert await curl(certificates, f"{base}/download") == DOWNLOAD

    # The stream's own task fails when it writes to the connection that was cut.
    run(main, known_report="Connection reset|Broken pipe|Connection lost|ConnectionResetError")
