"""The plain rules under the settings that the stream jobs run with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from jobs.streaming.settings import Settings
from jobs.transforms.attribution import lookback_of
from jobs.transforms.delivery_health import HealthRules
from jobs.transforms.invalid_traffic import Limits


def lookback_under(settings: Settings) -> Callable[[str, str], int]:
    """Seconds that a touch of an event type counts for with an advertiser."""
    others = (settings.attribution_click_lookback_s, settings.attribution_view_lookback_s)
    return lookback_of(settings.attribution_lookbacks_s, others)


def limits_under(settings: Settings) -> Limits:
    """What is still believed of traffic: the settings `ivt_...`."""
    return Limits(**{field.name: getattr(settings, f"ivt_{field.name}") for field in fields(Limits)})


def health_rules_under(settings: Settings) -> HealthRules:
    """When a campaign's delivery is in doubt: the settings `health_...`."""
    return HealthRules(**{field.name: getattr(settings, f"health_{field.name}") for field in fields(HealthRules)})
