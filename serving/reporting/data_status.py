"""How final a row is: the one place that decides.

`streaming`: from the live stream, near-exact, may still change. `corrected`: recomputed from the lake, exact.
`final`: corrected and closed for billing, does not change any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import IntEnum

_HOUR = timedelta(hours=1)


class DataStatus(IntEnum):
    """Ordered from the least to the most final."""

    STREAMING = 0
    CORRECTED = 1
    FINAL = 2

    @property
    def label(self) -> str:
        return self.name.lower()


def status_of(start: datetime, end: datetime, hours: Mapping[datetime, DataStatus]) -> DataStatus:
    """The status of a row that covers [start, end): that of the least final UTC hour in it.

    `hours` holds the hours (by their UTC start) that a correction has replaced; every other hour is streaming.
    """
    hour = start.replace(minute=0, second=0, microsecond=0)
    status = DataStatus.FINAL
    while hour < end:
        status = min(status, hours.get(hour, DataStatus.STREAMING))
        if status is DataStatus.STREAMING:
            break
        hour += _HOUR
    return status
