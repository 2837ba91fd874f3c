"""A PostgreSQL cluster of the tests' own: TCP, TLS and a Unix socket, nothing of it durable."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop_support.certificates import Certificates
from interop_support.processes import (
    ServerProcess,
    find_program,
    free_port,
    retry_if_port_taken,
    run_program,
)

SUPERUSER = "interop"
DATABASE = "postgres"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "ssl": "on",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


@dataclass(frozen=True)
class Postgres:
    process: ServerProcess
    socket_directory: Path
    port: int
    authority: Path

    def dsn(self, via: str) -> str:
        """A libpq connection string that goes in by `tcp`, `unix` or `tls`."""
        host = str(self.socket_directory) if via == "unix" else "127.0.0.1"
        tls = f"sslmode=verify-full sslrootcert={self.authority}"
        security = tls if via == "tls" else "sslmode=disable"
        return f"host={host} port={self.port} user={SUPERUSER} dbname={DATABASE} {security}"


def start_postgres(directory: Path, certificates: Certificates) -> Postgres:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    initdb = find_program("initdb", package="postgresql", directories=installed)
    postgres = find_program("postgres", package="postgresql", directories=installed)
    user = _unprivileged_user()

    data = directory / "data"
    data.mkdir()
    _give(directory, user)
    _give(data, user)
    run_program(
        [
            initdb, "--pgdata", str(data), "--auth=trust", f"--username={SUPERUSER}",
            "--encoding=UTF8", "--no-locale", "--no-sync",
        ],
        timeout=30,
        user=user,
    )  # fmt: skip
    certificate, key = data / "server.crt", data / "server.key"
    shutil.copy(certificates.server.certificate, certificate)
    shutil.copy(certificates.server.key, key)
    key.chmod(0o600)
    _give(certificate, user)
    _give(key, user)

    def start() -> Postgres:
        port = free_port()
        settings = {**_SETTINGS, "port": str(port), "unix_socket_directories": str(directory)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = ServerProcess(
            [postgres, "-D", str(data), *options],
            log=directory / "postgres.log",
            user=user,
            stop_signal=signal.SIGINT,  # "fast" shutdown: sessions are ended, not awaited
        )
        # The last line of postmaster.pid turns to "ready" once connections are let in.
        status = data / "postmaster.pid"
        process.wait_until(lambda: status.exists() and "ready" in status.read_text())
        return Postgres(process, directory, port, certificates.authority)

    return retry_if_port_taken(start)


def _unprivileged_user() -> str | None:
    """Who runs the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    pytest.skip("no unprivileged user to run PostgreSQL as")


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _version(directory: Path) -> float:
    try:
        return float(directory.parent.name)
    except ValueError:
        return 0.0
