"""A Redis server of the tests' own: TCP, TLS and a Unix socket, nothing written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from interop_support.certificates import Certificates
from interop_support.processes import (
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    retry_if_port_taken,
)


@dataclass(frozen=True)
class RedisServer:
    process: ServerProcess
    port: int
    tls_port: int
    socket: Path
    authority: Path

    def url(self, via: str) -> str:
        """A redis-py URL that goes in by `tcp`, `unix` or `tls`."""
        if via == "unix":
            return f"unix://{self.socket}"
        if via == "tls":
            return f"rediss://localhost:{self.tls_port}?ssl_ca_certs={self.authority}"
        return f"redis://127.0.0.1:{self.port}"


def start_redis(directory: Path, certificates: Certificates) -> RedisServer:
    program = find_program("redis-server", package="redis-server")
    socket = directory / "redis.sock"

    def start() -> RedisServer:
        port, tls_port = free_port(), free_port()
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "tls-port": str(tls_port),
            "tls-cert-file": str(certificates.server.certificate),
            "tls-key-file": str(certificates.server.key),
            "tls-ca-cert-file": str(certificates.authority),
            "tls-auth-clients": "no",
            "unixsocket": str(socket),
            "dir": str(directory),
            "save": "",
            "appendonly": "no",
        }
        argv = [part for name, value in settings.items() for part in (f"--{name}", value)]
        process = ServerProcess([program, *argv], log=directory / "redis.log")
        process.wait_until(
            lambda: (
                socket.exists()
                and all(
                    map(accepts_connections, (socket, ("127.0.0.1", port), ("127.0.0.1", tls_port)))
                )
            )
        )
        return RedisServer(process, port, tls_port, socket, certificates.authority)

    return retry_if_port_taken(start)
