"""gunicorn with uvicorn's worker class: forked workers that share a listening socket."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from interop_support.asgi_servers import HttpServer, start_gunicorn
from interop_support.http_client import HttpClient, fetch

pytest.importorskip("gunicorn", exc_type=ImportError)
pytest.importorskip("uvicorn_worker", exc_type=ImportError)


@pytest.fixture
def gunicorn(workspace) -> Iterator[HttpServer]:
    server = start_gunicorn(workspace, workers=2)
    yield server
    server.process.stop()


def test_workers_run_on_the_loop_under_test(gunicorn) -> None:
    facts = [fetch(gunicorn.port, "/info").require_loop_under_test().json() for _ in range(20)]
    pids = {each["pid"] for each in facts}
    assert gunicorn.process.pid not in pids
    assert 1 <= len(pids) <= 2
    body = b"posted" * 100_000
    assert fetch(gunicorn.port, "/echo", method="POST", body=body).body == body


def test_reload_replaces_the_workers_and_term_ends_them(gunicorn) -> None:
    before = fetch(gunicorn.port, "/info").json()["pid"]
    gunicorn.process.signal(signal.SIGHUP)
    gunicorn.process.wait_until(
        lambda: (
            gunicorn.process.output().count("Application startup complete") >= 4
            and gunicorn.process.output().count("lifespan.shutdown received") >= 2
        )
    )
    after = fetch(gunicorn.port, "/info").require_loop_under_test().json()["pid"]
    assert after != before
    gunicorn.process.signal(signal.SIGTERM)
    assert gunicorn.process.wait() == 0
    assert gunicorn.process.output().count("lifespan.shutdown received") == 4


def test_a_worker_serves_tls(workspace, certificates) -> None:
    server = start_gunicorn(workspace, workers=1, tls=certificates)
    try:
        with HttpClient(server.port, certificates.client_context()) as client:
            facts = client.request("/info").require_loop_under_test().json()
            assert facts["scheme"] == "https"
            assert len(client.request("/stream?32").body) == 32 * 65_536
    finally:
        server.process.stop()
