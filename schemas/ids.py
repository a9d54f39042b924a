"""Identifiers: derived, not drawn, wherever two parts must agree on one.

Source: BLAKE2 is RFC 7693; HMAC is RFC 2104 (truncation §5: at least half of the hash).
"""

from __future__ import annotations

import base64
import hashlib
import hmac

RECORD_ID_BYTES = 16


def encode_id(raw: bytes) -> str:
    """base64url without padding.

    Example:
    >>> encode_id(bytes(16))
    'AAAAAAAAAAAAAAAAAAAAAA'
    """
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_id(text: str) -> bytes:
    """Bytes of an id that `encode_id` made. Errors: ValueError when it is not base64url."""
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def event_id(record_id: bytes, event_code: int, ordinal: int) -> bytes:
    """16 bytes that are the same whenever the same event of the same ad is sent again.

    Example:
    >>> event_id(bytes(16), 1, 0) == event_id(bytes(16), 1, 0)
    True
    >>> event_id(bytes(16), 1, 0) == event_id(bytes(16), 8, 10)
    False
    """
    suffix = event_code.to_bytes(2, "big") + ordinal.to_bytes(4, "big")
    return hashlib.blake2b(record_id + suffix, digest_size=16).digest()


def upstream_record_id(source: str, upstream_id: str) -> bytes:
    """The record id of an ad that an upstream logger served, from the logger's own id of it."""
    return hashlib.blake2b(f"{source}\x1f{upstream_id}".encode(), digest_size=RECORD_ID_BYTES).digest()


def upstream_ordinal(original_time_ms: int) -> int:
    """The ordinal of an upstream event: its time in the log, in 31 bits.

    Loggers repeat an ad's id for another event of the same type (a second click, an impression served again): those
    are two events, while the same line sent twice is one.
    """
    return original_time_ms & 0x7FFF_FFFF


def order_record_id(advertiser_id: str, order_id: str) -> bytes:
    """What a conversion's event id derives from, whether or not its ad is known: one conversion per order."""
    return upstream_record_id("order", f"{advertiser_id}\x1f{order_id}")


def pseudonym(raw: str, key_id: int, key: bytes) -> str:
    """`v<key id>:<22 characters>`: the first 16 bytes of HMAC-SHA256 of a raw user id, IP or e-mail.

    Example:
    >>> pseudonym("someone", 1, b"k" * 32)
    'v1:-AQgYgrMw9V__m3By1gIWQ'
    """
    digest = hmac.new(key, raw.encode(), hashlib.sha256).digest()
    return f"v{key_id}:{encode_id(digest[:16])}"


def scope_hash(scope_id: str) -> int:
    """64 bits (unsigned) that stand for a campaign, creative, ... id in packed Valkey fields."""
    return int.from_bytes(hashlib.blake2b(scope_id.encode(), digest_size=8).digest(), "little")
