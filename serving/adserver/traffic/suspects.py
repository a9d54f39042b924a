"""Viewers that the stream has found out, as last read from Valkey: no request waits for it.

Source of the verdicts: jobs/streaming/invalid_traffic.py, rules about a viewer's rate; jobs/materializer writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from connectors.valkey import AsyncValkey
from schemas.errors import ConnectorError
from schemas.redis_layout import SUSPECTS, household_key, user_key

_TIMEOUT_S = 1.0
_MOST = 200_000


class Suspects:
    """Keys of users and households, each until its verdict is over. Valkey being away leaves what is known."""

    def __init__(self, valkey: AsyncValkey, clock: Callable[[], float]) -> None:
        self._valkey = valkey
        self._clock = clock
        self._until_s: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def has(self, pseudonym: str | None, household: str | None, now_s: float) -> bool:
        if not self._until_s:
            return False
        return (pseudonym is not None and self._until_s.get(user_key(pseudonym), 0) > now_s) or (
            household is not None and self._until_s.get(household_key(household), 0) > now_s
        )

    async def refresh(self) -> None:
        """Reads those whose verdict holds still. Errors: ConnectorError."""
        now_s = int(self._clock())
        (found,) = await self._valkey.pipeline(
            [("ZRANGE", SUSPECTS, f"({now_s}", "+inf", "BYSCORE", "LIMIT", 0, _MOST, "WITHSCORES")], _TIMEOUT_S
        )
        if isinstance(found, ConnectorError):
            raise found
        self._until_s = {key: int(float(score)) for key, score in zip(found[0::2], found[1::2], strict=True)}

    async def run(self, period_s: float) -> None:
        """Refreshes until it is cancelled."""
        while True:
            with suppress(ConnectorError):  # the connection's own log says why
                await self.refresh()
            await asyncio.sleep(period_s)
