"""A throw-away authority with one server and one client certificate, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from interop_support.processes import find_program

# The key identifiers are there because Python 3.13 verifies strictly by RFC 5280.
_OPENSSL_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = placeholder
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = email:client@localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""

SERVER_NAME = "localhost"
CLIENT_NAME = "interop client"


@dataclass(frozen=True)
class KeyPair:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    authority: Path
    server: KeyPair
    client: KeyPair

    def server_context(self, *, client_required: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority))
        context.load_cert_chain(self.server.certificate, self.server.key)
        if client_required:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        if with_certificate:
            context.load_cert_chain(self.client.certificate, self.client.key)
        return context


def make_certificates(directory: Path) -> Certificates:
    openssl = find_program("openssl", package="openssl")
    config = directory / "openssl.cnf"
    config.write_text(_OPENSSL_CONFIG)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority, authority_key = directory / "ca.pem", directory / "ca.key"
    request = [openssl, "req", "-config", str(config), *new_key]
    _run(
        *request, "-x509", "-days", "2", "-extensions", "authority",
        "-subj", "/CN=interop authority", "-keyout", str(authority_key), "-out", str(authority),
    )  # fmt: skip

    def issue(section: str, name: str) -> KeyPair:
        pair = KeyPair(directory / f"{section}.pem", directory / f"{section}.key")
        signing_request = directory / f"{section}.csr"
        _run(
            *request, "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(signing_request)
        )
        _run(
            openssl, "x509", "-req", "-days", "2", "-in", str(signing_request),
            "-CA", str(authority), "-CAkey", str(authority_key), "-CAcreateserial",
            "-extfile", str(config), "-extensions", section, "-out", str(pair.certificate),
        )  # fmt: skip
        return pair

    return Certificates(authority, issue("server", SERVER_NAME), issue("client", CLIENT_NAME))


def _run(*argv: str) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    if result.returncode != 0:
        raise RuntimeError(f"{argv[:2]} failed:\n{result.stderr}")
