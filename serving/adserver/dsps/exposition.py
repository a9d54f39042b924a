"""What DSPs did, as Prometheus reads it: made from the desks' own counts when somebody asks, not call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.adserver.dsps.desk import LATENCY_BOUNDS_S, Desk

_OUTCOMES = ("no_bids", "bids", "expired", "errors", "invalid")
_SKIPPED = {"tier": "skipped_tier", "limit": "skipped_limit", "breaker": "skipped_breaker"}
_AMOUNTS = {
    "adserver_dsp_late_bids": ("Bids that came after the auction", "late_bids", 1),
    "adserver_dsp_lost_revenue_micros": ("What late bids would have brought more", "late_lost_cpm_micros", 1000),
    "adserver_dsp_wins": ("Imps won by DSPs", "wins", 1),
    "adserver_dsp_revenue_micros": ("Price of imps won by DSPs", "won_cpm_micros", 1000),
    "adserver_dsp_gained_revenue_micros": ("Price of won imps above the next bid", "gained_cpm_micros", 1000),
    "adserver_dsp_sent_bytes": ("Bytes of requests to DSPs", "sent_bytes", 1),
}


class DspMetrics(Collector):
    """Registers itself nowhere: give it to a registry."""

    def __init__(self, desks: Callable[[], Mapping[str, Desk]]) -> None:
        self._desks = desks

    def collect(self) -> Iterator[Metric]:
        desks = self._desks()
        calls = CounterMetricFamily("adserver_dsp_calls", "Calls by DSP and outcome", labels=["bidder", "outcome"])
        skipped = CounterMetricFamily(
            "adserver_dsp_skipped", "Requests that a DSP was not sent", labels=["bidder", "why"]
        )
        latency = HistogramMetricFamily(
            "adserver_dsp_latency_seconds", "Answers of DSPs, late ones included", labels=["bidder"]
        )
        timeout = GaugeMetricFamily("adserver_dsp_timeout_seconds", "What a DSP is given now", labels=["bidder"])
        tier = GaugeMetricFamily("adserver_dsp_tier", "1: always asked, 2: half, 3: a probe's share", labels=["bidder"])
        score = GaugeMetricFamily(
            "adserver_dsp_score_micros", "Worth of a thousand requests sent, when it was last judged", labels=["bidder"]
        )
        for name, desk in desks.items():
            for outcome in _OUTCOMES:
                calls.add_metric([name, outcome.removesuffix("s")], getattr(desk.tally, outcome))
            for why, field in _SKIPPED.items():
                skipped.add_metric([name, why], getattr(desk.tally, field))
            latency.add_metric([name], _buckets(desk), desk.latency_sum_s)
            timeout.add_metric([name], desk.timeout.timeout_s)
            tier.add_metric([name], desk.tier)
            score.add_metric([name], desk.score_cpm_micros)
        yield from (calls, skipped, latency, timeout, tier, score)
        for name, (text, field, divisor) in _AMOUNTS.items():
            amount = CounterMetricFamily(name, text, labels=["bidder"])
            for bidder, desk in desks.items():
                amount.add_metric([bidder], getattr(desk.tally, field) // divisor)
            yield amount


def _buckets(desk: Desk) -> list[tuple[str, float]]:
    """Cumulative counts, as the text format wants them."""
    below = 0
    made: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), desk.latency_counts, strict=True):
        below += count
        made.append((bound, below))
    return made
