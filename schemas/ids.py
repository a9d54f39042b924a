"""Identifiers: derived, not drawn, wherever two parts must agree on one.

Source: BLAKE2 is RFC 7693; HMAC is RFC 2104 (truncation §5: at least half of the hash).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from functools import lru_cache

RECORD_ID_BYTES = 16
_FOREIGN_ID_CHARACTERS = 128
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_SHA256_BLOCK = 64
_INNER, _OUTER = (bytes(n ^ pad for n in range(256)) for pad in (0x36, 0x5C))
_EVENT_SUFFIX = struct.Struct(">HI")


def encode_id(raw: bytes) -> str:
    """base64url without padding.

    Example:
    >>> encode_id(bytes(16))
    'AAAAAAAAAAAAAAAAAAAAAA'
    """
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL_SAFE, b"=").decode("ascii")


def decode_id(text: str) -> bytes:
    """Bytes of an id that `encode_id` made. Errors: ValueError when it is not base64url."""
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def foreign_id(text: str) -> str:
    """An id of somebody else's, fit for keys, columns and markup: printable, and no longer than 128 characters.

    Example:
    >>> foreign_id("c-1"), foreign_id(" a\\x00b "), len(foreign_id("x" * 1000))
    ('c-1', 'a b', 128)
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.strip()[:_FOREIGN_ID_CHARACTERS]


def event_id(record_id: bytes, event_code: int, ordinal: int) -> bytes:
    """16 bytes that are the same whenever the same event of the same ad is sent again.

    Example:
    >>> event_id(bytes(16), 1, 0) == event_id(bytes(16), 1, 0)
    True
    >>> event_id(bytes(16), 1, 0) == event_id(bytes(16), 8, 10)
    False
    """
    return hashlib.blake2b(record_id + _EVENT_SUFFIX.pack(event_code, ordinal), digest_size=16).digest()


def tracker_call_id(event_id: bytes, url: str) -> str:
    """The idempotency key of telling one third party of one event. `url` is the tracker's, macros not expanded.

    Example:
    >>> tracker_call_id(bytes(16), "https://p.test/i?cb=[CACHEBUSTING]")
    'uB-FdvsN_EWVMFBQRkVkWw'
    """
    return encode_id(hashlib.blake2b(event_id + url.encode(), digest_size=16).digest())


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
    inner, outer = _keyed(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(raw.encode())
    outer.update(inner.digest())
    return f"v{key_id}:{encode_id(outer.digest()[:16])}"


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC-SHA256's two hashes after the key, which is half of its work; to be copied, not changed. RFC 2104 §2, §4."""
    block = (hashlib.sha256(key).digest() if len(key) > _SHA256_BLOCK else key).ljust(_SHA256_BLOCK, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


def scope_hash(scope_id: str) -> int:
    """64 bits (unsigned) that stand for a campaign, creative, ... id in packed counters: the start of its SHA-256.

    SHA-256 because Java has it too: the stream job packs the same bytes.

    Example:
    >>> hex(scope_hash("c1"))
    '0xdba8db1dca31f6d0'
    """
    return int.from_bytes(hashlib.sha256(scope_id.encode()).digest()[:8], "little")
