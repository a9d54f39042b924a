"""Guaranteed line items: how far a promise of impressions has got, and what an impression is worth to it now.

In the allocation of guaranteed contracts as an optimisation problem every contract has a dual price, the value of one
more impression towards its demand: a contract takes an impression when that exceeds what others would pay for it (the
opportunity cost). With exact forecasts the dual is solved offline (Vee, Vassilvitskii, Shanmugasundaram, "Optimal
online assignment with forecasts", EC 2010; Bharadwaj et al., "SHALE: an efficient algorithm for allocation of
guaranteed display advertising", KDD 2012). Here it is controlled online from delivery alone, as in Chen, Berkhin,
Anderson, Devanur, "Real-time bidding algorithms for performance-based display ad allocation", KDD 2011: the price rises
as what is left of the promise outgrows what is left of the traffic.

    need = (goal left / goal) / (traffic left / traffic),     urgency = need ^ EXPONENT, within [LEAST, MOST]

On schedule need is 1 and the line item bids its own price; at half the speed in the middle of its flight need is 1.5.
It has no state, so every server finds the same value, and a repeat changes nothing.
"""

from __future__ import annotations

#: How fast urgency rises with need; its bounds. Ahead of schedule the line item stands back, but is never given away.
EXPONENT = 3.0
LEAST, MOST = 0.25, 20.0


def traffic_passed(start_ms: int, end_ms: int, now_ms: int) -> float:
    """The share of a flight that is over, 0 to 1. Whole days weigh alike, so a flat clock is forecast enough for it.

    Example:
    >>> traffic_passed(0, 1000, 250), traffic_passed(0, 1000, 5000)
    (0.25, 1.0)
    """
    return min(max((now_ms - start_ms) / max(end_ms - start_ms, 1), 0.0), 1.0)


def urgency(goal_impressions: int, delivered_impressions: int, passed: float) -> float:
    """What an impression is worth to a promise, in multiples of its price; 0 when the promise is kept.

    `passed` is the share of the flight's traffic that is over.

    Example:
    >>> urgency(1000, 500, 0.5), urgency(1000, 250, 0.5), urgency(1000, 1000, 0.9)
    (1.0, 3.375, 0.0)
    """
    left = goal_impressions - delivered_impressions
    if left <= 0:
        return 0.0
    if passed >= 1.0:
        return MOST
    need = (left / goal_impressions) / (1.0 - passed)
    return min(max(need**EXPONENT, LEAST), MOST)


def opportunity_cost_price(bid_micros: int, urgency: float) -> int:
    """The CPM (micros) that a guaranteed line item is ranked at. It is not what it pays: that is agreed."""
    return int(bid_micros * urgency)
