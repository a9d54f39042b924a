"""Tiers on a real Valkey: two processes count, both come to the same tiers, and a third that starts has them too."""

from __future__ import annotations

import asyncio
import uuid

from connectors.endpoints import Endpoints
from connectors.http_client import PoolLimits
from connectors.valkey import AsyncValkey
from schemas.catalog import Bidder
from schemas.redis_layout import DSP_SCORES, DspStanding, parse_dsp_standing
from serving.adserver.dsps.bidders import Bidders, CallRules
from serving.adserver.dsps.tiers import ENOUGH_CALLS, HALF_WORTH_MS, TierKeeper

PERIOD_S = 60
NOW_S = 1_767_614_400


def test_processes_judge_together(local_services: Endpoints) -> None:
    run = uuid.uuid4().hex[:8]
    good, bad = f"good:{run}", f"bad:{run}"  # ids may have the separator in them

    async def start(valkey: AsyncValkey, clock: list[float]) -> tuple[Bidders, TierKeeper]:
        bidders = Bidders(CallRules(PoolLimits()))
        bidders.replace([Bidder(good, "http://127.0.0.1:9/g"), Bidder(bad, "http://127.0.0.1:9/b")])
        return bidders, TierKeeper(valkey, lambda: bidders.desks, PERIOD_S, clock=lambda: clock[0])

    async def play() -> None:
        clock = [NOW_S + 1.0]
        valkey = AsyncValkey(local_services.valkey_url)
        await valkey.start()
        (a, keeper_a), (b, keeper_b) = await start(valkey, clock), await start(valkey, clock)
        for keeper in (keeper_a, keeper_b):
            await keeper.step()
        for bidders in (a, b):  # half of what it takes to judge, in each process
            for desk in bidders.desks.values():
                desk.tally.calls += ENOUGH_CALLS // 2
            bidders.desks[good].tally.gained_cpm_micros += 1_000_000
            for _ in range(10):
                bidders.desks[good].observe(HALF_WORTH_MS / 1000)
        clock[0] = NOW_S + 50
        for keeper in (keeper_a, keeper_b):
            await keeper.step()
            await keeper.step()  # nothing is told twice
        assert {d.tier for bidders in (a, b) for d in bidders.desks.values()} == {1}
        clock[0] = NOW_S + PERIOD_S + 30
        for keeper in (keeper_a, keeper_b):
            await keeper.step()
        assert [(x.desks[good].tier, x.desks[bad].tier) for x in (a, b)] == [(1, 3), (1, 3)]
        reply = await valkey.call("HGETALL", DSP_SCORES)
        written = {n.decode(): parse_dsp_standing(v) for n, v in zip(reply[0::2], reply[1::2], strict=True)}
        calls = ENOUGH_CALLS // 2 * 2
        score_cpm_micros = 2_000_000 // calls // 2  # an answer takes as long as halves its worth
        assert written[good] == DspStanding(1, score_cpm_micros, calls, 0, 0, 0, HALF_WORTH_MS)
        assert written[bad] == DspStanding(3, 0, calls, 0, 0, 0, 0)
        assert a.desks[good].score_cpm_micros == score_cpm_micros
        assert 0 < await valkey.call("TTL", DSP_SCORES) <= 3 * PERIOD_S
        late, keeper = await start(valkey, clock)
        await keeper.step()
        assert (late.desks[good].tier, late.desks[bad].tier) == (1, 3)
        await valkey.close()

    asyncio.run(play())
