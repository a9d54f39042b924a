"""What a win costs when it is written down in the usual way: redis-py, WATCH, read, MULTI, EXEC, again on conflict.

It keeps what ours keeps (spend + reserved <= budget, a cap of a viewer, a registry record, an expiry to sweep by) and
gives up what is harder: leases, release by the stream's progress, settlement by absolute spend.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import WatchError


@dataclass(frozen=True, slots=True)
class Win:
    """One win to write down."""

    record_id: str
    campaign_id: str
    viewer: str
    price_micros: int
    budget_micros: int
    cap: int
    registry: bytes


async def commit(redis: Redis, win: Win, life_s: int) -> bool:
    """Whether there was money and attention for it; then it is reserved, counted and registered."""
    spend, reserved = f"budget:{win.campaign_id}:spend", f"budget:{win.campaign_id}:reserved"
    expiries, seen = f"budget:{win.campaign_id}:expiries", f"cap:{win.viewer}:{win.campaign_id}"
    async with redis.pipeline(transaction=True) as pipe:
        while True:
            try:
                await pipe.watch(spend, reserved, seen)
                spent = int(await pipe.get(spend) or 0)
                held = int(await pipe.get(reserved) or 0)
                if spent + held + win.price_micros > win.budget_micros or int(await pipe.get(seen) or 0) >= win.cap:
                    return False
                pipe.multi()
                pipe.incrby(reserved, win.price_micros)
                pipe.zadd(expiries, {f"{win.record_id}:{win.price_micros}": time.time() + life_s})
                pipe.incr(seen)
                pipe.expire(seen, 3600)
                pipe.set(f"registry:{win.record_id}", win.registry, ex=life_s)
                await pipe.execute()
                return True
            except WatchError:
                continue
