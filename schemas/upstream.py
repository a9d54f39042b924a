"""What a line of an upstream logger's log says, in our names. Pure; identifiers are still raw in a result.

Columns that the event contract knows travel under the contract's names (`RECORD_TEXT`, `RECORD_NUMBERS`), the rest
under the log's own. The formats are in schemas/upstream_formats.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.errors import Reject, RejectReason
from schemas.registry_record import AdRecord

#: Fields of the ad's record that an upstream line may bring itself, as text and as whole numbers.
RECORD_TEXT: tuple[str, ...] = (
    "advertiser_id",
    "campaign_id",
    "creative_id",
    "line_item_id",
    "placement_id",
    "publisher_id",
    "site_id",
    "app_id",
    "content_id",
    "content_category",
    "pricing",
    "currency",
    "creative_format",
    "device_type",
    "platform",
    "country",
    "region",
)
RECORD_NUMBERS: tuple[str, ...] = ("impression_cost_micros", "click_cost_micros")
REQUIRED: tuple[str, ...] = ("advertiser_id", "campaign_id", "creative_id")
#: Attribute with the event's time as the log has it, epoch ms.
ORIGINAL_TIME = "original_time_ms"
#: Attribute with the log's format; it is the `source` of `ids.upstream_record_id`.
FORMAT = "upstream_format"


@dataclass(frozen=True, slots=True)
class UpstreamEvent:
    """One event of a line. `user` and `ip` are raw: only the door sees them, and it makes pseudonyms of them.

    Of an ad of ours the line has the `token`. Of any other ad `source_format` and `upstream_id` are the name: events of
    the same ad share both. A `conversion` has an `order_id`. `source` is one of `events.SOURCES`.
    """

    event_type: str | None
    source_format: str
    upstream_id: str | None
    original_time_ms: int
    user: str | None
    ip: str | None
    attributes: dict[str, str]
    order_id: str | None = None
    token: str | None = None
    source: str = "server"


@dataclass(frozen=True, slots=True)
class Rebase:
    """Moves a log's times to another start, `speed_up` times as fast.

    Example:
    >>> Rebase.parse("1000, 50000, 10").at(3000)
    50200
    """

    first_original_ms: int
    start_ms: int
    speed_up: float

    @classmethod
    def parse(cls, text: str) -> Rebase:
        """From `first_original_ms,start_ms,speed_up`. Errors: ValueError."""
        first, start, speed_up = text.split(",")
        made = cls(int(first), int(start), float(speed_up))
        if not 0 < made.speed_up < 1e9:
            raise ValueError("speed_up must be positive")
        return made

    def at(self, original_ms: int) -> int:
        return self.start_ms + round((original_ms - self.first_original_ms) / self.speed_up)


#: A line and its place (file:line) as its events. Errors: ValueError says what is malformed.
Parser = Callable[[str, str], list[UpstreamEvent]]


def record_of(
    record_id: str,
    attributes: Mapping[str, str],
    user_pseudonym: str | None,
    household_pseudonym: str | None,
    time_ms: int,
) -> AdRecord | Reject:
    """The ad's record as an upstream line's attributes tell it."""
    missing = [name for name in REQUIRED if not attributes.get(name)]
    if missing:
        return Reject(RejectReason.MISSING_FIELD, ", ".join(missing))
    text = {name: attributes[name] for name in RECORD_TEXT if name in attributes}
    try:
        numbers = {name: int(attributes[name]) for name in RECORD_NUMBERS if name in attributes}
    except ValueError:
        return Reject(RejectReason.BAD_VALUE, "a cost is not a whole number")
    if any(value < 0 for value in numbers.values()):
        return Reject(RejectReason.BAD_VALUE, "a cost is negative")
    return AdRecord(
        record_id=record_id,
        request_id="",
        imp_id="",
        decision_time_ms=time_ms,
        user_pseudonym=user_pseudonym,
        household_pseudonym=household_pseudonym,
        **text,  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )
