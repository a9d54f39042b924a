"""The budget soak, a few seconds of it: servers and Valkey are killed while hundreds of ads are won at once."""

from __future__ import annotations

from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from infra.bench.budget_soak import soak
from schemas.redis_layout import MATERIALIZER_MARKER, PROGRESS_KEY


def test_money_and_caps_hold_whoever_is_killed(local_services: Endpoints) -> None:
    found = soak(local_services, seconds=6.0, at_once=400, workers=2, budget_wins=120)
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("DEL", MATERIALIZER_MARKER, PROGRESS_KEY)
    assert found.valkey_kills >= 1 and found.worker_kills >= 1
    assert found.wins > 200 and found.shown > 0 and found.clicks > 0, "something was won"
    assert found.overspend_micros == 0
    assert found.caps_exceeded == 0
    assert found.stranded_micros <= 0.001 * found.budget_micros
