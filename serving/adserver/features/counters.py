"""Counters as Valkey gives them, decoded once and summed over windows with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.counters import Counter, touched_buckets
from schemas.redis_layout import FIELD_BYTES, FIELD_DTYPE, PLAIN_DTYPE, SCOPED_DTYPE

_FIELD, _SCOPED, _PLAIN = np.dtype(FIELD_DTYPE), np.dtype(SCOPED_DTYPE), np.dtype(PLAIN_DTYPE)
assert _FIELD.itemsize == FIELD_BYTES  # the packed layout and its dtype must agree


def well_formed(reply: Sequence[bytes], scoped: bool) -> Sequence[bytes]:
    """An HGETALL reply (field, value, field, ...) without what is not of our layout."""
    size = (_SCOPED if scoped else _PLAIN).itemsize
    if set(map(len, reply[0::2])) <= {FIELD_BYTES} and not any(n % size for n in set(map(len, reply[1::2]))):
        return reply
    pairs = zip(reply[0::2], reply[1::2], strict=True)
    return [part for n, v in pairs if len(n) == FIELD_BYTES and len(v) % size == 0 for part in (n, v)]


def decode(reply: Sequence[bytes], scoped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counters of `well_formed` replies, all buckets after each other.

    Shape: a structured array of SCOPED_DTYPE or PLAIN_DTYPE; beside it the start of each one's bucket (int64, epoch
    s); and how many there are in each bucket.
    """
    entry = _SCOPED if scoped else _PLAIN
    values = reply[1::2]
    starts = np.frombuffer(b"".join(reply[0::2]), _FIELD)["bucket_start_s"].astype(np.int64)
    sizes = np.fromiter(map(len, values), np.intp, len(values)) // entry.itemsize
    return np.frombuffer(b"".join(values), entry), starts.repeat(sizes), sizes


class CounterBlob:
    """The counters of a user or household. Sums are remembered: the caps of thirty creatives ask for a few windows.

    Shape: `code`, `scope`, `start_s` (of the bucket, epoch s) and `value`, an element per counter of each bucket.
    """

    def __init__(self, reply: Sequence[bytes] = ()) -> None:
        entries, self.start_s, _ = decode(well_formed(reply, scoped=True), scoped=True)
        self.code = np.ascontiguousarray(entries["code"])
        self.scope = np.ascontiguousarray(entries["scope"])
        self.value = entries["value"].astype(np.int64)
        self._of_code: dict[int, list[tuple[int, int, int]]] | None = None  # (start, scope, value), once asked for
        self._sums: dict[tuple[int, int, int], dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self.value)

    def sums(self, code: int, first_bucket_s: int, last_bucket_s: int) -> dict[int, int]:
        """Sum per scope hash over buckets in a range (inclusive); scopes without a bucket are not in it."""
        key = (code, first_bucket_s, last_bucket_s)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = {}
            of_code = self._of_code if self._of_code is not None else self._sorted()
            for start_s, scope, value in of_code.get(code, ()):
                if first_bucket_s <= start_s <= last_bucket_s:
                    found[scope] = found.get(scope, 0) + value
        return found

    def _sorted(self) -> dict[int, list[tuple[int, int, int]]]:
        """The entries by code. A viewer has a few dozen: fewer than arrays would be worth it for."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        columns = (self.start_s.tolist(), self.scope.tolist(), self.value.tolist())
        for code, entry in zip(self.code.tolist(), zip(*columns, strict=True), strict=True):
            found.setdefault(code, []).append(entry)
        self._of_code = found
        return found

    def counts(self, counter: Counter, window_s: int, now_s: int) -> dict[int, int]:
        """Events per scope in a window that ends now: all of them, and less than a bucket's worth of older ones."""
        return self.sums(counter.code, *touched_buckets(now_s, window_s, counter.bucket_s))
