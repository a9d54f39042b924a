"""Formats of upstream logs that the collector takes, and what a line of one says.

| format | lines |
| --- | --- |
| `ipinyou-impression`, `ipinyou-click` | 24 tab-separated columns |
| `talkingdata-click` | 8 comma-separated columns; the header line is skipped |
| `display-logger` | a pixel server's access log in Combined Log Format: `GET /t/{token}` is an event |
| `ssai` | JSON: what one request to a manifest or segment made due, any number of tokens |
"""

from __future__ import annotations

from schemas.errors import Reject, RejectReason
from schemas.upstream import Parser, UpstreamEvent
from schemas.upstream_auctions import ipinyou, talkingdata
from schemas.upstream_tokens import display_logger, ssai

FORMATS: dict[str, Parser] = {
    "ipinyou-impression": ipinyou("impression"),
    "ipinyou-click": ipinyou("click"),
    "talkingdata-click": talkingdata,
    "display-logger": display_logger,
    "ssai": ssai,
}


def parse_line(source_format: str, line: str, origin: str) -> list[UpstreamEvent] | Reject:
    """The events of one line (none for a header), or why it is refused.

    `origin` is file:line; it is the identity of lines whose format has no id of its own.
    Errors: KeyError for an unknown format.
    """
    parser = FORMATS[source_format]
    try:
        return parser(line, origin)
    except (ValueError, OverflowError, RecursionError) as e:
        return Reject(RejectReason.MALFORMED_LINE, str(e))
