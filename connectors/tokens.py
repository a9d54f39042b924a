"""Opaque tokens: what a tracker carries about its event, sealed so that only we can make or read one.

`base64url(version 1 | key id 2 | nonce 12 | AES-256-GCM(record id 16, event code 1, ordinal 1, issued 4, expires 4) |
tag 16)`: 57 bytes, hence 76 characters with no padding and no spare bits, so one token has one spelling.
The header (version and key id) is authenticated as additional data.
Source: AES-GCM is NIST SP 800-38D; with random 96-bit nonces (§8.3) a key may seal 2^32 tokens: rotate before.
"""

from __future__ import annotations

import binascii
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connectors.keys import TOKEN, KeyRing
from schemas.errors import RejectReason, TokenError

VERSION = 1
_HEADER = struct.Struct(">BH")
_CLAIMS = struct.Struct(">16sBBII")
_NONCE_BYTES = 12
_TAG_BYTES = 16
TOKEN_BYTES = _HEADER.size + _NONCE_BYTES + _CLAIMS.size + _TAG_BYTES
TOKEN_CHARACTERS = TOKEN_BYTES * 4 // 3
_HEADER_BYTES = _HEADER.size
_SEALED = _HEADER_BYTES + _NONCE_BYTES

_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
#: The standard alphabet's own two characters become invalid, or a token would have two spellings.
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


class TokenClaims(NamedTuple):
    """What a genuine token says. Times are epoch seconds."""

    record_id: bytes
    event_code: int
    ordinal: int
    issued_s: int
    expires_s: int

    def expired(self, at_s: float) -> bool:
        """Whether the token's life was over at a time: a flag for quality, the event still counts."""
        return at_s > self.expires_s


class TokenMinter:
    """Makes tokens under the ring's current key."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._cipher: tuple[int, AESGCM, bytes] | None = None

    def mint(self, record_id: bytes, event_code: int, ordinal: int, issued_s: int, ttl_s: int) -> str:
        """A token for one event of an ad. Shape: `record_id` 16 bytes, `ordinal` 0-255. Errors: struct.error."""
        return self.mint_all(record_id, ((event_code, ordinal),), issued_s, ttl_s)[0]

    def mint_all(self, record_id: bytes, events: Sequence[tuple[int, int]], issued_s: int, ttl_s: int) -> list[str]:
        """A token for each (event code, ordinal) of one ad, as `mint` makes them."""
        key = self._ring.current(TOKEN)
        if self._cipher is None or self._cipher[0] != key.id:
            self._cipher = (key.id, AESGCM(key.secret), _HEADER.pack(VERSION, key.id))
        _, cipher, header = self._cipher
        expires_s = issued_s + ttl_s
        random = os.urandom(_NONCE_BYTES * len(events))
        raw: list[bytes] = []
        encrypt, pack, at = cipher.encrypt, _CLAIMS.pack, 0
        for event_code, ordinal in events:
            nonce = random[at : at + _NONCE_BYTES]
            at += _NONCE_BYTES
            raw += (header, nonce, encrypt(nonce, pack(record_id, event_code, ordinal, issued_s, expires_s), header))
        # 57 bytes are whole groups of three, so tokens side by side are encoded as each of them would be
        text = binascii.b2a_base64(b"".join(raw), newline=False).translate(_TO_URL_SAFE).decode("ascii")
        return [text[at : at + TOKEN_CHARACTERS] for at in range(0, len(text), TOKEN_CHARACTERS)]


class TokenOpener:
    """Reads tokens of any key that the ring still holds."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._ciphers: dict[int, tuple[bytes, AESGCM]] = {}

    def open(self, token: str) -> TokenClaims:
        """What the token says.

        Errors: TokenError with TOKEN_MALFORMED (not of our form), TOKEN_UNKNOWN_KEY, or TOKEN_FORGED (the tag does
        not match). An expired token opens: ask `TokenClaims.expired`.
        """
        if len(token) != TOKEN_CHARACTERS:
            raise TokenError(RejectReason.TOKEN_MALFORMED, f"{len(token)} characters, not {TOKEN_CHARACTERS}")
        try:
            raw = binascii.a2b_base64(token.encode("ascii").translate(_FROM_URL_SAFE), strict_mode=True)
        except (ValueError, binascii.Error) as e:
            raise TokenError(RejectReason.TOKEN_MALFORMED, "not base64url") from e
        if len(raw) != TOKEN_BYTES:
            raise TokenError(RejectReason.TOKEN_MALFORMED, f"{len(raw)} bytes, not {TOKEN_BYTES}")
        header = raw[:_HEADER_BYTES]
        cipher = self._cipher(*_HEADER.unpack(header))
        try:
            claims = cipher.decrypt(raw[_HEADER_BYTES:_SEALED], raw[_SEALED:], header)
        except InvalidTag:
            raise TokenError(RejectReason.TOKEN_FORGED) from None
        return TokenClaims._make(_CLAIMS.unpack(claims))

    def _cipher(self, version: int, key_id: int) -> AESGCM:
        if version != VERSION:
            raise TokenError(RejectReason.TOKEN_MALFORMED, f"version {version}")
        key = self._ring.by_id(TOKEN, key_id)
        if key is None:
            self._ciphers.pop(key_id, None)
            raise TokenError(RejectReason.TOKEN_UNKNOWN_KEY, f"key {key_id}")
        cached = self._ciphers.get(key_id)
        if cached is None or cached[0] != key.secret:
            cached = self._ciphers[key_id] = (key.secret, AESGCM(key.secret))
        return cached[1]
