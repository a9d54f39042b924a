"""What comes from networks of data centres is marked, not refused (general invalid traffic by list).

No address leaves this process.
Source: MRC Invalid Traffic Detection and Filtration Standards Addendum (2020), known data-center traffic.
"""

from __future__ import annotations

from connectors.addresses import sender
from connectors.http_messages import Request
from connectors.networks import Networks

#: The quality reason of events from a listed network; jobs/streaming/invalid_traffic.py gives it a verdict.
DATA_CENTER = "ivt_data_center"
_UNDOUBTED: tuple[str, ...] = ()
_DATA_CENTER: tuple[str, ...] = (DATA_CENTER,)


class Doubts:
    """What the collector itself doubts of a request, as quality reasons."""

    def __init__(self, networks: Networks, forwarded_hops: int = 0) -> None:
        self._networks = networks
        self._forwarded_hops = forwarded_hops

    def __call__(self, request: Request) -> tuple[str, ...]:
        if not self._networks:
            return _UNDOUBTED
        return _DATA_CENTER if self._networks.has(sender(request, self._forwarded_hops)) else _UNDOUBTED
