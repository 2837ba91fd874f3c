"""uvicorn and gunicorn as their command lines start them, and nginx as a proxy in front."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop_support.certificates import Certificates
from interop_support.loops import factory_path
from interop_support.processes import (
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    python,
    retry_if_port_taken,
)

APPLICATION = "interop_support.asgi_app:app"


@dataclass(frozen=True)
class HttpServer:
    """A server process and where it listens; `tls` says whether `port` speaks TLS."""

    process: ServerProcess
    port: int = 0
    tls: bool = False
    socket: Path | None = None


@dataclass(frozen=True)
class Nginx:
    process: ServerProcess
    port: int
    tls_port: int
    upstream: HttpServer


def start_uvicorn(directory: Path, *arguments: str, tls: Certificates | None = None) -> HttpServer:
    """`uvicorn --loop module:factory` on a TCP port."""
    _require_module("uvicorn")

    def start() -> HttpServer:
        port = free_port()
        process = ServerProcess(
            python(
                "-m", "uvicorn", APPLICATION, "--loop", factory_path(),
                "--host", "127.0.0.1", "--port", str(port), *arguments, *_tls_options(tls, "ssl-"),
            ),
            log=directory / f"uvicorn-{port}.log",
        )  # fmt: skip
        process.wait_until(lambda: accepts_connections(("127.0.0.1", port)))
        return HttpServer(process, port, tls is not None)

    return retry_if_port_taken(start)


def start_uvicorn_on_unix_socket(directory: Path) -> HttpServer:
    _require_module("uvicorn")
    socket = directory / "uvicorn.sock"
    process = ServerProcess(
        python(
            "-m", "uvicorn", APPLICATION, "--loop", factory_path(), "--uds", str(socket),
            "--proxy-headers", "--forwarded-allow-ips", "*",
        ),
        log=directory / "uvicorn-unix.log",
    )  # fmt: skip
    process.wait_until(lambda: socket.exists() and accepts_connections(socket))
    return HttpServer(process, socket=socket)


def start_gunicorn(directory: Path, *, workers: int, tls: Certificates | None = None) -> HttpServer:
    """gunicorn with uvicorn's worker class, in the subclass that names the loop."""
    _require_module("gunicorn")
    _require_module("uvicorn_worker")

    def start() -> HttpServer:
        port = free_port()
        process = ServerProcess(
            python(
                "-m", "gunicorn", APPLICATION, "--workers", str(workers),
                "--worker-class", "interop_support.gunicorn_worker.LoopUnderTestWorker",
                "--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", str(directory),
                "--graceful-timeout", "5", "--pid", str(directory / f"gunicorn-{port}.pid"),
                *_tls_options(tls, ""),
            ),
            log=directory / f"gunicorn-{port}.log",
        )  # fmt: skip
        # The master listens before a worker has booted; uvicorn says when one serves.
        process.wait_until(
            lambda: process.output().count("Application startup complete") >= workers
        )
        return HttpServer(process, port, tls is not None)

    return retry_if_port_taken(start)


def start_nginx(directory: Path, certificates: Certificates, upstream: HttpServer) -> Nginx:
    program = find_program("nginx", package="nginx-light")
    directory.mkdir(exist_ok=True)

    def start() -> Nginx:
        port, tls_port = free_port(), free_port()
        config = directory / "nginx.conf"
        config.write_text(
            _NGINX_CONFIG.format(
                directory=directory,
                port=port,
                tls_port=tls_port,
                certificate=certificates.server.certificate,
                key=certificates.server.key,
                upstream=upstream.socket,
            )
        )
        process = ServerProcess(
            [program, "-c", str(config), "-p", str(directory), "-e", "stderr"],
            log=directory / "nginx.log",
        )
        process.wait_until(
            lambda: all(accepts_connections(("127.0.0.1", each)) for each in (port, tls_port))
        )
        return Nginx(process, port, tls_port, upstream)

    return retry_if_port_taken(start)


def _tls_options(certificates: Certificates | None, prefix: str) -> list[str]:
    if certificates is None:
        return []
    return [
        f"--{prefix}certfile", str(certificates.server.certificate),
        f"--{prefix}keyfile", str(certificates.server.key),
    ]  # fmt: skip


def _require_module(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"could not import {name!r}: {error}")


# One process as the current user: no privileges are needed, and ending it leaves no worker behind.
_NGINX_CONFIG = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
    upstream application {{ server unix:{upstream}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""
