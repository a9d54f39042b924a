"""Bit strings in base64url, as TCF and GPP write them."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from bisect import bisect_right
from collections.abc import Iterable

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
#: Characters that a string, or a segment of one, has at most.
LONGEST = 8_192
#: No number in these strings is larger.
_LARGEST = 1 << 16


class Flags:
    """Positions, from 1, of the bits that are set in a field. As large as the field, whatever is in it."""

    __slots__ = ("_value", "_width")

    def __init__(self, value: int, width: int) -> None:
        self._value = value
        self._width = width

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 1 <= number <= self._width and bool(self._value >> self._width - number & 1)


class Spans:
    """The numbers of spans, first and last included. As large as there are spans, however wide they are.

    Example:
    >>> spans = Spans([(7, 9), (1, 1), (8, 65535)])
    >>> [n in spans for n in (0, 1, 2, 7, 40_000)]
    [False, True, False, True, True]
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(spans):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]


class Bits:
    """Reads a bit string from its start. Errors: ValueError for what is no base64url, or when it ends too early."""

    def __init__(self, text: str) -> None:
        text = text.rstrip("=")
        if not text or len(text) > LONGEST or not _ALPHABET.fullmatch(text):
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

    def flags(self, width: int) -> Flags:
        """The next `width` bits as a set of positions."""
        return Flags(self.number(width), width)

    def fibonacci(self) -> int:
        """A Fibonacci-coded number: it ends with two set bits. Errors: also ValueError when it is larger than any.

        Source: GPP Core, "Fibonacci encoding".
        """
        total, one, two, last = 0, 1, 2, False
        while True:
            bit = self.flag()
            if bit and last:
                return total
            if bit:
                total += one
            if one > _LARGEST:
                raise ValueError("larger than any number there is")
            one, two, last = two, one + two, bit
