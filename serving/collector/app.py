"""The collector's doors behind one handler."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connectors.http_messages import Request, Response, refusal
from connectors.keys import CONVERSIONS, UPSTREAM, KeyRing
from serving.collector import beacons, conversions, telemetry, upstream
from serving.collector.batches import BatchDoor
from serving.collector.buffer import Buffer
from serving.collector.contracts import Contracts
from serving.collector.metrics import CollectorMetrics
from serving.collector.networks import Doubts
from serving.collector.settings import CollectorSettings

_PREFLIGHT = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "content-type"),
    ("Access-Control-Max-Age", "86400"),
)


class Collector:
    """Finds the door of a request. Beacons come first: they are nearly all of the traffic."""

    def __init__(
        self,
        settings: CollectorSettings,
        contracts: Contracts,
        ring: KeyRing,
        buffer: Buffer,
        metrics: CollectorMetrics,
        version: str,
        doubts: Doubts,
        now_ms: Callable[[], int],
    ) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._ring = ring
        self._doubts = doubts
        door = partial(BatchDoor, buffer=buffer, metrics=metrics, settings=settings)
        self._beacon = beacons.BeaconDoor(contracts, buffer, metrics, doubts, now_ms)
        self._telemetry = door(telemetry.DOOR)
        self._read_telemetry = partial(telemetry.read_telemetry, contracts, now_ms)
        self._conversions = door(conversions.DOOR)
        self._read_conversion = conversions.ConversionReader(contracts, ring, now_ms)
        self._upstream = upstream.UpstreamDoor(contracts, ring, door(upstream.DOOR), version, now_ms)

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        path, method = request.path, request.method
        if path.startswith(beacons.PATH) and method in ("GET", "POST", "HEAD"):
            return self._beacon(request)
        if method == "OPTIONS":
            return Response(204, headers=_PREFLIGHT)
        if method == "POST":
            return self._post(request, path)
        if method in ("GET", "HEAD") and path == "/status":
            return Response(200, json.dumps(self.status()).encode())
        if method == "GET" and path == "/metrics":
            self._metrics.buffered.set(self._buffer.waiting)
            return Response(200, generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST)
        return refusal(404, "not_found")

    def status(self) -> dict[str, object]:
        """What `/status` shows. Ready also while the broker is away: the buffer takes what comes."""
        return {
            "ready": True,
            "buffered": self._buffer.waiting,
            "last_delivery_failure": self._buffer.last_failure or None,
        }

    def _post(self, request: Request, path: str) -> Response | Awaitable[Response]:
        if path == telemetry.PATH:
            return self._telemetry.take(request, partial(self._read_telemetry, self._doubts(request)))
        if path == conversions.PATH:
            return self._guarded(CONVERSIONS, request) or self._conversions.take(request, self._read_conversion)
        if path.startswith(upstream.PATH):
            return self._guarded(UPSTREAM, request) or self._upstream(request)
        return refusal(404, "not_found")

    def _guarded(self, purpose: str, request: Request) -> Response | None:
        """The refusal of a request without a key of the purpose; None for one that may go on."""
        if self._ring.accepts(purpose, request.header(b"x-api-key")):
            return None
        return refusal(401, "api_key", detail=f"X-Api-Key of purpose {purpose}")
