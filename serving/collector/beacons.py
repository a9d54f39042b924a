"""The beacon door: `GET|POST /t/{token}?ts=<epoch ms>&...`. A device always gets a 2xx, whatever it sends.

`ts` is the client's clock; `src` says who sends (schemas/events.py SOURCES, a video player if absent); `event` is the
client's own name of the event, for people. Anything else becomes an attribute.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from connectors.http_messages import Request, Response
from schemas.errors import ContractError
from schemas.events import SOURCES
from serving.collector.attributes import clean_attributes
from serving.collector.buffer import Buffer
from serving.collector.contracts import Contracts
from serving.collector.metrics import CollectorMetrics
from serving.collector.networks import Doubts

PATH = "/t/"
DOOR = "beacon"
#: A transparent GIF of one pixel, 43 bytes, for trackers that are images.
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
_HEADERS = (("Access-Control-Allow-Origin", "*"), ("Cache-Control", "no-store"))
_EMPTY = Response(204, headers=_HEADERS)
_PIXEL = Response(200, PIXEL, "image/gif", _HEADERS)
_LONG_MAX = 2**63 - 1


class BeaconDoor:
    """Answers beacons from memory: nothing is waited for."""

    def __init__(
        self,
        contracts: Contracts,
        buffer: Buffer,
        metrics: CollectorMetrics,
        doubts: Doubts,
        now_ms: Callable[[], int],
    ) -> None:
        self._contracts = contracts
        self._buffer = buffer
        self._doubts = doubts
        self._now_ms = now_ms
        self._accepted = metrics.accepted.labels(DOOR)
        self._lost = metrics.lost.labels("buffer_full")
        self._dropped = metrics.dropped_attributes
        self._unreadable = metrics.refused.labels(DOOR, "unreadable")

    def __call__(self, request: Request) -> Response:
        answer = _PIXEL if b"image/" in request.headers.get(b"accept", b"") else _EMPTY
        try:
            record = self._contracts.telemetry(self._telemetry(request))
        except (ValueError, ContractError):
            self._unreadable.inc()
            return answer
        if self._buffer.put(record):
            self._accepted.inc()
        else:
            self._lost.inc()
        return answer

    def _telemetry(self, request: Request) -> dict[str, object]:
        params = dict(request.params)
        client_time_ms = epoch_ms(params.get("ts"))
        if client_time_ms is not None:
            del params["ts"]  # one that can't be read stays among the attributes, and the event counts without it
        source = params.pop("src", SOURCES[0])
        event = params.pop("event", None)
        attributes, dropped = clean_attributes(params) if params else ({}, 0)
        if dropped:
            self._dropped.inc(dropped)
        return {
            "token": request.path[len(PATH) :],
            "source": source if source in SOURCES else SOURCES[0],
            "client_event": event[:64] if event else None,
            "client_time_ms": client_time_ms,
            "received_time_ms": self._now_ms(),
            "attributes": attributes,
            "quality_reasons": self._doubts(request),
        }


def epoch_ms(text: str | None) -> int | None:
    """A client's clock as a whole number, at the ends of 64 bits if it is beyond them; None for any other text.

    Example:
    >>> epoch_ms("1700000000000"), epoch_ms("[TIMESTAMP]"), epoch_ms("-" + "9" * 30)
    (1700000000000, None, -9223372036854775807)
    """
    if text is None or len(text) > 40:
        return None
    try:
        return max(-_LONG_MAX, min(_LONG_MAX, int(text)))
    except ValueError:
        return None
