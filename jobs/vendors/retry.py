"""What an answer means, and when to try again.

Source: RFC 9110 §10.2.3 (Retry-After), §15 (status codes); M. Brooker, "Exponential Backoff And Jitter", 2015.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto

#: 4xx that say "later", not "no": timeout, too early, too many requests.
_LATER = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Verdict(Enum):
    """What follows from a status."""

    DELIVERED = auto()
    REDIRECTED = auto()
    LATER = auto()
    REFUSED = auto()


def verdict(status: int) -> Verdict:
    """What a partner's status means for a call.

    Example:
    >>> [verdict(s).name for s in (200, 204, 302, 304, 404, 429, 503)]
    ['DELIVERED', 'DELIVERED', 'REDIRECTED', 'DELIVERED', 'REFUSED', 'LATER', 'LATER']
    """
    if status in _REDIRECTS:
        return Verdict.REDIRECTED
    if status < 400:
        return Verdict.DELIVERED
    return Verdict.LATER if status >= 500 or status in _LATER else Verdict.REFUSED


def backoff_s(failures: int, first_s: float, most_s: float, rng: random.Random) -> float:
    """Pause after the nth failure in a row: doubling from `first_s` to `most_s`, of which a random half is taken off.

    The half that stays keeps a partner that is down from being asked at once; the other half keeps its callers apart.
    """
    full_s = min(most_s, first_s * 2.0 ** min(failures - 1, 40))
    return full_s * rng.uniform(0.5, 1.0)


def retry_after_s(header: bytes | None, now_s: float, most_s: float) -> float | None:
    """Seconds that a partner asks us to wait, at most `most_s`; None when it names no time that can be read.

    Example:
    >>> retry_after_s(b"30", 0, 3600), retry_after_s(b"Thu, 01 Jan 1970 00:01:00 GMT", 0, 3600)
    (30.0, 60.0)
    """
    if header is None:
        return None
    text = header.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), most_s)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.fromtimestamp(now_s, UTC)).total_seconds()), most_s)
