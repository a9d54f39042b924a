"""The simulated verification and measurement partners: what they were told, and the ways in which they fail.

A partner that is told of something answers 204 and counts it under the caller's idempotency key. One key in
`_LATER_SHARE` is answered 503 with `Retry-After` the first time, so that a run without an outage shows retries too.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from connectors.http_messages import Request, Response, refusal
from infra.simulator.market import PARTNER_EVENTS

_LATER_SHARE = 50
_KEY = b"idempotency-key"


@dataclass
class PartnerDesk:
    """One partner's books. `told` counts the calls that it took, by idempotency key."""

    told: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    put_off: set[str] = field(default_factory=set)
    refused: int = 0

    def report(self) -> dict[str, Any]:
        return {
            "calls": self.told.total(),
            "distinct": len(self.told),
            "events": dict(self.events),
            "put_off": len(self.put_off),
            "refused": self.refused,
        }


class Partners:
    """All partners behind one port: `GET /partner/<id>/<event>`."""

    def __init__(self) -> None:
        self.desks = {partner: PartnerDesk() for partner in PARTNER_EVENTS}

    def handle(self, partner: str, event: str, request: Request) -> Response:
        """The answer to one call."""
        desk, key = self.desks.get(partner), request.header(_KEY)
        if desk is None:
            return refusal(404, "no such partner")
        if event not in PARTNER_EVENTS[partner] or not key:
            desk.refused += 1
            return refusal(400, "no such event, or no key")
        if zlib.crc32(key.encode()) % _LATER_SHARE == 0 and key not in desk.put_off:
            desk.put_off.add(key)
            return Response(503, headers=(("Retry-After", "1"),))
        desk.told[key] += 1
        desk.events[event] += 1
        return Response(204)
