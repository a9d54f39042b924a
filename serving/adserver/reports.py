"""What follows an answer: the decision is logged and counted, and its bidders are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import cache

from prometheus_client import Counter

from schemas.decisions import Degraded
from serving.adserver import metrics
from serving.adserver.auction.notices import notices
from serving.adserver.decision import Decision
from serving.adserver.decision_log import DecisionLog, keep
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.context import RequestContext

logger = logging.getLogger(__name__)


class Reports:
    """One per process."""

    def __init__(self, log: DecisionLog, notify: Callable[[str], None]) -> None:
        self._log = log
        self._notify = notify

    def soon(
        self,
        decisions: Sequence[Decision],
        context: RequestContext,
        inventory: Inventory,
        latency_ms: float,
        delivered: Callable[[], bool],
    ) -> None:
        """Reports decisions in the loop's next round, when their answer is on its way or has nobody to go to."""
        if not context.request.test and not self._log.available:
            for decision in decisions:
                decision.reasons.add(Degraded.DECISION_LOG_UNAVAILABLE)  # which the answer says too

        def report() -> None:
            is_shown = delivered()
            for decision in decisions:
                self._report(decision, context, inventory, latency_ms, is_shown)

        asyncio.get_running_loop().call_soon(report)

    def _report(
        self, decision: Decision, context: RequestContext, inventory: Inventory, latency_ms: float, is_shown: bool
    ) -> None:
        """Logs and counts a decision, and tells its bidders. Test traffic is counted alone."""
        _decisions(decision.winner.pricing if decision.winner is not None else "nothing").inc()
        if context.request.test:
            return
        try:
            for _, url in notices(decision, context.request.id, inventory.rates, is_shown):
                self._notify(url)
        except Exception:  # URLs are strangers' text, and the decision is to be logged whatever they hold
            logger.exception("notices failed")
            metrics.NOTICES.labels("failed").inc()
        keep(self._log, decision, context, inventory.currency, latency_ms)


@cache
def _decisions(shown: str) -> Counter:
    return metrics.DECISIONS.labels(shown)
