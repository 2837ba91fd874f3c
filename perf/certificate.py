"""A key and a self-signed certificate for one run; the load client trusts every one."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import processes

# Lives, and is removed, with the process.
_scratch = tempfile.TemporaryDirectory(prefix="tokioloop-perf-")


@functools.cache
def path() -> Path:
    """One PEM file with the key and the certificate."""
    if shutil.which("openssl") is None:
        raise processes.ServerFailed("the openssl command is needed to make a certificate")
    key, pem = Path(_scratch.name) / "key.pem", Path(_scratch.name) / "both.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-keyout", str(key), "-out", str(pem)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise processes.ServerFailed(f"openssl makes no certificate: {done.stderr.strip()}")
    with pem.open("a") as both:
        both.write(key.read_text())
    return pem
