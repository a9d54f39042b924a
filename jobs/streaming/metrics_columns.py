"""Select lists of campaign-metrics-v1, made from its contract."""

from __future__ import annotations

from collections.abc import Iterable

from schemas import campaign_metrics

_NEVER_ABSENT = frozenset({"creative_version"})  # a number, required by AdEvent


def dimensions() -> str:
    """The dimensions, an absent value as the contract spells it."""
    return ", ".join(
        name if name in _NEVER_ABSENT else f"COALESCE({name}, '{campaign_metrics.ABSENT}') AS {name}"
        for name in campaign_metrics.DIMENSIONS
    )


def zeros(columns: Iterable[str]) -> str:
    """Deltas that a job leaves to others.

    Example:
    >>> zeros(["clicks"])
    'CAST(0 AS BIGINT) AS clicks'
    """
    return ", ".join(f"CAST(0 AS BIGINT) AS {name}" for name in columns)


def zeros_but(*columns: str) -> str:
    """Deltas of all columns that a job does not count itself."""
    return zeros(name for name in campaign_metrics.SUMS if name not in columns)
