"""Bit strings in base64url, as TCF and GPP write them."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
_LONGEST = 8_192


class Bits:
    """Reads a bit string from its start. Errors: ValueError for what is no base64url, or when it ends too early."""

    def __init__(self, text: str) -> None:
        text = text.rstrip("=")
        if not text or len(text) > _LONGEST or not _ALPHABET.fullmatch(text):
            raise ValueError("not base64url")
        # an encoder may leave a last group of one character, whose six bits count all the same
        padded = text + "A" * (-len(text) % 4)
        try:
            self._value = int.from_bytes(urlsafe_b64decode(padded), "big")
        except binascii.Error as e:
            raise ValueError("not base64url") from e
        self._bits = len(padded) * 6
        self._end = len(text) * 6
        self._at = 0

    def number(self, width: int) -> int:
        """The next `width` bits, the first one being the highest."""
        self._at += width
        if self._at > self._end:
            raise ValueError("ends too early")
        return (self._value >> (self._bits - self._at)) & ((1 << width) - 1)

    def flag(self) -> bool:
        return self.number(1) == 1

    def flags(self, width: int) -> frozenset[int]:
        """Positions, from 1, of the bits that are set."""
        value = self.number(width)
        return frozenset(i for i in range(1, width + 1) if value >> (width - i) & 1)

    def fibonacci(self) -> int:
        """A Fibonacci-coded number: it ends with two set bits.

        Source: GPP Core, "Fibonacci encoding".
        """
        total, one, two, last = 0, 1, 2, False
        while True:
            bit = self.flag()
            if bit and last:
                return total
            if bit:
                total += one
            one, two, last = two, one + two, bit
