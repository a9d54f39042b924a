"""The check before anybody is asked: lists, rates, contradictions and the stream's verdicts, cheapest first.

| reason | why |
| --- | --- |
| 2101 | the address is of a listed data centre (the collector's file; exempt your servers that insert ads) |
| 2102 | the user agent declares itself a robot |
| 2103, 2104 | more requests of one address or user than a setting allows, in this process |
| 2105 | user agent and operating system contradict each other |
| 2106 | the stream has found the viewer out |

Each reason is refused, or only marked in the decision's reasons, as a setting says; every one is counted either way, so
that false positives can be seen. Rates and contradictions are marked by default: offices and carriers share addresses.
Memory only: neither the address nor the user agent goes further than here.
Source: MRC Invalid Traffic Detection and Filtration Standards Addendum (2020): general invalid traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from connectors.networks import Networks
from schemas.decisions import Degraded
from serving.adserver import metrics
from serving.adserver.openrtb.context import RequestContext
from serving.adserver.traffic.rates import Rates
from serving.adserver.traffic.user_agents import UserAgents, contradicts

REASONS = {
    "data_center": Degraded.TRAFFIC_DATA_CENTER,
    "bot": Degraded.TRAFFIC_BOT,
    "address_rate": Degraded.TRAFFIC_ADDRESS_RATE,
    "user_rate": Degraded.TRAFFIC_USER_RATE,
    "inconsistent": Degraded.TRAFFIC_INCONSISTENT,
    "verdict": Degraded.TRAFFIC_VERDICT,
}
_WINDOW_S = 60
_MOST_KEYS = 100_000

#: Whether the stream has found out a (user, household) at a time (epoch s).
IsSuspect = Callable[[str | None, str | None, float], bool]


class Integrity:
    """One per process. The lists may be replaced while requests run."""

    def __init__(
        self, refused: Collection[str], address_per_minute: int, user_per_minute: int, is_suspect: IsSuspect
    ) -> None:
        self.networks = Networks()
        self.user_agents = UserAgents()
        self._refused = frozenset(REASONS[name] for name in refused)
        self._addresses = Rates(address_per_minute, _WINDOW_S, _MOST_KEYS)
        self._users = Rates(user_per_minute, _WINDOW_S, _MOST_KEYS)
        self._is_suspect = is_suspect
        self._counts = {reason: metrics.DOUBTED.labels(name) for name, reason in REASONS.items()}

    def use_networks(self, text: str) -> None:
        """Errors: ConfigError names every line that is no network."""
        self.networks = Networks.of_lines(text.splitlines())

    def use_user_agents(self, text: str) -> None:
        self.user_agents = UserAgents(text.splitlines())

    def doubts(self, context: RequestContext) -> Degraded | None:
        """Why no person seems to have made a request; None for no doubt. Counts it."""
        found = self._found(context)
        if found is not None:
            self._counts[found].inc()
        return found

    def refuses(self, doubt: Degraded | None) -> bool:
        return doubt in self._refused

    def _found(self, context: RequestContext) -> Degraded | None:
        device, now_s = context.request.device, context.now_ms / 1000
        if device is not None:
            address, user_agent = device.ip or device.ipv6, device.ua
            if address:
                # counted first: whatever else speaks, the rate must know of it
                too_often = self._addresses.exceeded(hash(address), now_s)
                if self.networks and self.networks.has(address):
                    return Degraded.TRAFFIC_DATA_CENTER
                if too_often:
                    return Degraded.TRAFFIC_ADDRESS_RATE
            if user_agent:
                if self.user_agents.is_bot(user_agent):
                    return Degraded.TRAFFIC_BOT
                if contradicts(user_agent, device.os, device.devicetype):
                    return Degraded.TRAFFIC_INCONSISTENT
        if context.pseudonym is not None and self._users.exceeded(hash(context.pseudonym), now_s):
            return Degraded.TRAFFIC_USER_RATE
        if self._is_suspect(context.pseudonym, context.household, now_s):
            return Degraded.TRAFFIC_VERDICT
        return None
