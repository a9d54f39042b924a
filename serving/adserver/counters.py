"""Counters of one entity as Valkey gives them, decoded once and summed over windows with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.redis_layout import FIELD_BYTES, FIELD_DTYPE

_DTYPE = np.dtype(FIELD_DTYPE)
assert _DTYPE.itemsize == FIELD_BYTES  # the packed layout and its dtype must agree


def decode(reply: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Fields and values of an HGETALL reply (field, value, field, ...).

    Shape: a structured array of FIELD_DTYPE, and int64 values beside it. Fields of another length are left out.
    """
    names, numbers = reply[0::2], reply[1::2]
    packed = b"".join(names)
    if len(packed) != FIELD_BYTES * len(names) or any(len(name) != FIELD_BYTES for name in names):
        kept = [(n, v) for n, v in zip(names, numbers, strict=True) if len(n) == FIELD_BYTES]
        packed, numbers = b"".join(n for n, _ in kept), [v for _, v in kept]
    return np.frombuffer(packed, _DTYPE), np.fromiter(map(int, numbers), np.int64, len(numbers))


class CounterBlob:
    """One entity's counters. Sums are remembered: the caps of thirty creatives ask for a handful of windows."""

    def __init__(self, reply: Sequence[bytes] = ()) -> None:
        fields, self._value = decode(reply)
        self._code = np.ascontiguousarray(fields["code"])
        self._scope = np.ascontiguousarray(fields["scope"])
        self._bucket = fields["bucket_start_s"].astype(np.int64)
        self._sums: dict[tuple[int, int, int], dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._value)

    def sums(self, code: int, first_bucket_s: int, last_bucket_s: int) -> dict[int, int]:
        """Sum per scope hash over buckets in a range (inclusive); scopes without a bucket are not in it."""
        key = (code, first_bucket_s, last_bucket_s)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = {}
            if len(self._value):
                inside = (self._code == code) & (self._bucket >= first_bucket_s) & (self._bucket <= last_bucket_s)
                for scope, value in zip(self._scope[inside].tolist(), self._value[inside].tolist(), strict=True):
                    found[scope] = found.get(scope, 0) + value
        return found
