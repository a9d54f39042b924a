"""Select lists of campaign-metrics-v1, made from its contract."""

from __future__ import annotations

from schemas import campaign_metrics

_NEVER_ABSENT = frozenset({"creative_version"})  # a number, required by AdEvent


def dimensions() -> str:
    """The dimensions, an absent value as the contract spells it."""
    return ", ".join(
        name if name in _NEVER_ABSENT else f"COALESCE({name}, '{campaign_metrics.ABSENT}') AS {name}"
        for name in campaign_metrics.DIMENSIONS
    )
