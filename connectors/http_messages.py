"""HTTP requests and responses as our servers see them, and their bytes on the wire.

Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NO_CONTENT = 204
#: Answers shorter than this are looked up before they are read: most are those that say "no bid".
_SHORT_BYTES = 512
#: Parameters that a query may have.
MAX_PARAMS = 64


@dataclass(slots=True)
class Limits:
    """What a client may ask of a server. Units are in the names; timeouts count wall time."""

    head_bytes: int = 16_384
    body_bytes: int = 1_048_576
    head_timeout_s: float = 10.0  # from a request's first byte to the end of its head
    body_timeout_s: float = 30.0  # from the end of the head to the end of the body
    idle_timeout_s: float = 75.0  # between two requests
    write_timeout_s: float = 30.0  # a client that does not read its answers
    linger_s: float = 2.0  # how long the rest of a refused body is still read, so that the client sees the answer
    pipelined: int = 32  # requests of one connection that may wait for their turn
    connections: int = 10_000


@dataclass
class Request:
    """One request. Header names are lower-case; of a repeated header the last counts."""

    method: str
    path: str  # as sent: percent-encoding is left alone
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    peer: str  # address of the other end: the client or the nearest proxy
    connected: Callable[[], bool] = lambda: True  # whether whoever asked is still there to be answered

    def header(self, name: bytes, default: str = "") -> str:
        """A header's value as text. `name` in lower case."""
        value = self.headers.get(name)
        return default if value is None else value.decode("latin-1")

    @cached_property
    def params(self) -> dict[str, str]:
        """The query, decoded; of a repeated name the last counts. Errors: ValueError for more than 64 of them."""
        text = self.query.decode("latin-1")
        if "%" in text or "+" in text:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMS, errors="replace"))
        parts = text.split("&") if text else []  # nothing is encoded: the common case, at a fifth of the cost
        if len(parts) > MAX_PARAMS:
            raise ValueError(f"more than {MAX_PARAMS} parameters")
        pairs = (part.partition("=") for part in parts if part)
        return {name: value for name, _equals, value in pairs}


@dataclass(slots=True)
class Response:
    """One answer. `close` ends the connection after it."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


def encode_response(response: Response, date: bytes, keep_alive: bool, old_client: bool, without_body: bool) -> bytes:
    """The response's bytes. `old_client`: HTTP/1.0, which has to be told that the connection stays open."""
    parts = [_STATUS_LINES[response.status], b"Date: ", date, b"\r\n"]
    if response.status != _NO_CONTENT:
        head = f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
        parts.append(head.encode("latin-1"))
    for name, value in response.headers:
        parts.append(f"{name}: {value}\r\n".encode("latin-1"))
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    elif old_client:
        parts.append(b"Connection: keep-alive\r\n")
    parts.append(b"\r\n")
    if not without_body and response.status != _NO_CONTENT:
        parts.append(response.body)
    return b"".join(parts)


def plain_answer(data: bytes) -> tuple[int, int] | None:
    """(status, start of the body) of bytes that are exactly one answer, of the plainest kind: 200 with one length, or
    204, on a connection that stays open. None for everything else, which a parser then has to judge.

    Example:
    >>> plain_answer(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
    (204, 27)
    >>> plain_answer(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    (200, 38)
    >>> plain_answer(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n{}") is None
    True
    """
    return _plain_again(data) if len(data) < _SHORT_BYTES else _plain(data)


def _plain(data: bytes) -> tuple[int, int] | None:
    end = data.find(b"\r\n\r\n")
    status = data[:13]
    if end < 0 or status not in (b"HTTP/1.1 200 ", b"HTTP/1.1 204 "):
        return None
    head = data[:end].lower()
    if b"encoding" in head or (b"connection:" in head and b"\r\nconnection: keep-alive" not in head):
        return None
    lengths = head.count(b"content-length")
    if status == b"HTTP/1.1 204 ":
        return (204, end + 4) if not lengths and len(data) == end + 4 else None
    at = head.find(b"\r\ncontent-length:")
    if lengths != 1 or at < 0:
        return None
    value = head[at + 17 :].partition(b"\r\n")[0].strip()
    if not value.isdigit() or len(value) > 9 or int(value) != len(data) - end - 4:
        return None
    return 200, end + 4


#: An answer without a body is the same bytes again and again, within a second if it has a date.
_plain_again = lru_cache(maxsize=1024)(_plain)


def refusal(status: int, reason: str, **details: object) -> Response:
    """An error answer in our form: `{"error": reason, ...}`."""
    return Response(status, json.dumps({"error": reason, **details}).encode())
