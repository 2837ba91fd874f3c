"""A blocking HTTP/1.1 client from the standard library: a peer that knows no loops."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from interop_support.asgi_app import LOOP_HEADER
from interop_support.loops import expected_class_name


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.body)
        return facts

    def require_loop_under_test(self) -> Response:
        """Fail unless the test application answered from a loop of the class under test."""
        assert self.status == 200, self
        assert self.headers[LOOP_HEADER] == expected_class_name()
        return self


class HttpClient:
    """One kept-alive connection; used as a context manager."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.connection = (
            http.client.HTTPConnection("localhost", port, timeout=8)
            if tls is None
            else http.client.HTTPSConnection("localhost", port, timeout=8, context=tls)
        )

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def request(self, path: str, *, method: str = "GET", body: Any = None) -> Response:
        """One request; a `body` that is an iterable of bytes goes out chunk by chunk."""
        chunked = body is not None and not isinstance(body, bytes)
        self.connection.request(method, path, body=body, encode_chunked=chunked)
        response = self.connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, headers, response.read())


def fetch(port: int, path: str, *, tls: ssl.SSLContext | None = None, **request: Any) -> Response:
    """One request on a connection of its own."""
    with HttpClient(port, tls) as client:
        return client.request(path, **request)
