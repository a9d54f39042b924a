"""`headwater bench features`: CPU of reading a user's counters and of putting 100 candidates' inputs together, beside
the straightforward way (straightforward_features.py). Both give the same numbers, which is checked first.

The features are those that are declared, filled up to 150 numbers by more windows of the same counters. Counters of
ads and places are in process memory on both sides. What counts is CPU of this process, the client's share of the read
included; Valkey's own is not. The candidates of each request are in an order of their own: nothing that is remembered
of a lineup helps, as when caps and pacing leave other ads to each viewer.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
import uvloop

from connectors.endpoints import Endpoints
from connectors.keys import KeyRing
from connectors.valkey import AsyncValkey, Valkey
from infra.bench import adserver_market
from infra.bench.report import Row, Sample
from infra.bench.services import services
from infra.bench.straightforward_features import StraightforwardFeatures
from infra.bench.straightforward_features import Table as PlainTable
from schemas.counters import FREQUENCY_COUNTERS, GRAINS, MINUTE_S
from schemas.features import CONTEXT_FEATURES, FEATURES, Feature, rate, total
from schemas.redis_layout import entity_key, user_key
from serving.adserver.features.columns import ENTITIES, Columns
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.inputs import KEPT_LINEUPS, Inputs
from serving.adserver.features.reader import Asked, FeatureReader
from serving.adserver.features.snapshot import EntityCounters, Table, entity_counters, entity_ids
from serving.adserver.inventory import Inventory

INPUTS = 150
_REQUESTS = 400
_PLACEMENT, _CATEGORY = "pl-0", "IAB17"
_TIMEOUT_S = 5.0


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows of ours beside the straightforward way. `scale` shrinks the number of requests."""
    requests = max(10, int(_REQUESTS * scale))
    with services(("valkey",)) as where:
        keys = KeyRing.load(where.secrets)
        with Valkey(where.valkey_url) as valkey:
            adserver_market.fill(valkey, keys, 1)
        whole, assembled = uvloop.run(_measured(where, keys, pairs, requests))
    return [
        Row("read and assembly", "CPU ms/request", whole),
        Row("of it assembly, the reply at hand", "CPU ms/request", assembled),
    ], [
        f"{adserver_market.ADS} candidates, {INPUTS} numeric inputs: {len(FEATURES)} declared features of counters, "
        f"{len(CONTEXT_FEATURES)} of context, the rest more windows; {requests} requests of different users a run",
    ]


def features() -> tuple[Feature, ...]:
    """The declared features, and as many windows more as make 150 numbers."""
    more = itertools.islice(_windows(), INPUTS - len(FEATURES) - len(CONTEXT_FEATURES))
    found = (*FEATURES, *more)
    assert len({f.name for f in found}) == len(found)
    return found


def _windows() -> Iterator[Feature]:
    """Other windows of the declared counters: of the user, of ads, of places."""
    user = [c for c in FREQUENCY_COUNTERS if c.entity == "user"]
    for share in (2, 3, 4, 6):
        for counter in user:
            longest = next((g.longest_window_s for g in GRAINS if g.bucket_s == counter.bucket_s), None)
            if longest is not None:
                window_s = longest // share // counter.bucket_s * counter.bucket_s
                yield total(f"{counter.name}_{window_s}s", counter.name, window_s)
    for minutes in (5, 10, 20, 30, 45, 90):
        for entity in ("creative", "campaign", "placement"):
            window_s = minutes * MINUTE_S
            yield rate(f"{entity}_ctr_{minutes}m", entity, "5m", window_s)
            yield total(f"{entity}_impressions_{minutes}m", f"{entity}_impressions_5m", window_s)
    for hours in (2, 3, 8, 12):
        for entity in ("creative", "campaign", "placement", "advertiser", "creative_format", "category"):
            yield rate(f"{entity}_ctr_{hours}h", entity, "hour", hours * 60 * MINUTE_S)


async def _measured(
    where: Endpoints, keys: KeyRing, pairs: int, requests: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    columns = Columns(features())
    inventory = Inventory(adserver_market.catalog(1))
    valkey = AsyncValkey(where.valkey_url)
    await valkey.start()
    now_s = int(time.time())
    counters = await _snapshot(valkey, inventory, columns, now_s)
    ours = _Ours(valkey, inventory, columns, counters, now_s)
    ads, places = _tables(inventory, columns, counters)
    beside = _Beside(
        StraightforwardFeatures(where.valkey_url, columns.features, ads, places),
        inventory,
        columns,
        now_s,
    )
    users = [keys.pseudonym(f"user-{n}") for n in range(adserver_market.USERS)]
    for pseudonym in users[:20]:
        inputs = await ours.request(pseudonym)
        expected = (await beside.request(pseudonym))[inputs.own]
        np.testing.assert_allclose(inputs.values[:, : inputs.candidates].T, expected, rtol=1e-12)
        inputs.release()
    samples: list[Sample] = []
    assembled: list[Sample] = []
    turn = itertools.cycle(users)
    for pair in range(pairs):
        chosen = [next(turn) for _ in range(requests)]
        found = {}
        for who in (ours, beside) if pair % 2 == 0 else (beside, ours):
            found[who] = await _cpu_ms(who, chosen if who is ours else chosen[: max(5, requests // 10)])
        samples.append((found[ours][0], found[beside][0]))
        assembled.append((found[ours][0] - found[ours][1], found[beside][0] - found[beside][1]))
    await valkey.close()
    await beside.features.close()
    return tuple(samples), tuple(assembled)


class _Ours:
    def __init__(
        self, valkey: AsyncValkey, inventory: Inventory, columns: Columns, counters: EntityCounters, now_s: int
    ) -> None:
        self._valkey = valkey
        self._inventory = inventory
        self._reader = FeatureReader(3600.0, columns)
        self._counters = counters
        self._now_s = now_s
        rng = np.random.default_rng(7)
        self._lineups = itertools.cycle([rng.permutation(len(inventory.rows)) for _ in range(2 * KEPT_LINEUPS)])
        self._asked = Asked(_PLACEMENT, _CATEGORY)

    async def read(self, pseudonym: str) -> list[bytes]:
        (reply,) = await self._valkey.pipeline([("HGETALL", user_key(pseudonym))], _TIMEOUT_S)
        found: list[bytes] = reply
        return found

    async def request(self, pseudonym: str) -> Inputs:
        user = CounterBlob(await self.read(pseudonym))
        lineup = next(self._lineups)
        inputs, _ = self._reader.read(self._inventory, lineup, self._asked, user, self._counters, self._now_s)
        return inputs

    async def whole(self, pseudonym: str) -> None:
        (await self.request(pseudonym)).release()


class _Beside:
    def __init__(
        self,
        straightforward: StraightforwardFeatures,
        inventory: Inventory,
        columns: Columns,
        now_s: int,
    ) -> None:
        self.features = straightforward
        self._names = columns.names
        self._now_s = now_s
        self._candidates = [
            {"creative": r.creative.id, "campaign": r.campaign.id, "advertiser": r.advertiser.id}
            for r in inventory.rows
        ]

    async def read(self, pseudonym: str) -> object:
        return await self.features.read(pseudonym)

    async def request(self, pseudonym: str) -> np.ndarray:
        return await self.features.matrix(pseudonym, self._candidates, _PLACEMENT, _CATEGORY, self._names, self._now_s)

    async def whole(self, pseudonym: str) -> None:
        await self.request(pseudonym)


async def _cpu_ms(who: _Ours | _Beside, users: list[str]) -> tuple[float, float]:
    """(a whole request, the read alone)"""
    found = []
    for call in (who.whole, who.read):
        start_s = time.process_time()
        for pseudonym in users:
            await call(pseudonym)
        found.append((time.process_time() - start_s) * 1000 / len(users))
    return found[0], found[1]


async def _snapshot(valkey: AsyncValkey, inventory: Inventory, columns: Columns, now_s: int) -> EntityCounters:
    ids = entity_ids(inventory)
    tables = {}
    for entity in ENTITIES:
        commands = [("HGETALL", entity_key(entity, id_)) for id_ in ids[entity]]
        tables[entity] = Table(await valkey.pipeline(commands, _TIMEOUT_S))
    return entity_counters(inventory, tables, now_s, columns)


def _tables(inventory: Inventory, columns: Columns, counters: EntityCounters) -> tuple[PlainTable, PlainTable]:
    """Values of ads and of places as dicts, as the other side keeps them."""
    reader = FeatureReader(3600.0, columns)
    asked = Asked(_PLACEMENT, _CATEGORY)
    inputs, _ = reader.read(inventory, np.arange(len(inventory.rows)), asked, None, counters, int(counters.read_s))
    of_ad = [*(f.name for f in (*columns.of_ad, *columns.of_both)), "creative_duration_s"]
    of_place = [f.name for found in columns.of_request.values() for f in found]
    ads = {
        row.creative.id: {name: float(inputs.values[columns.row[name], n]) for name in of_ad}
        for n, row in enumerate(inventory.rows)
    }
    return ads, {_PLACEMENT: {name: float(inputs.values[columns.row[name], 0]) for name in of_place}}
