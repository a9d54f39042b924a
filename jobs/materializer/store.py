"""Valkey as the materializer needs it: writes that notice when the server has lost what was written before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from schemas.errors import ConnectorError, TimedOut, Unavailable
from schemas.redis_layout import MATERIALIZER_MARKER, expired_fields, materializer_marker

_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_PRUNED_KEYS = 200_000


class StateLost(Exception):
    """The server is empty, or was restarted and may have lost its last writes: everything has to be written again."""


class Store:
    """One connection. Errors of every call: Unavailable, TimedOut, Refused."""

    def __init__(self, valkey: Valkey, now_s: Callable[[], float] = time.time) -> None:
        self._valkey = valkey
        self._now_s = now_s
        self._run_id: bytes | None = None  # of the server behind the connection; None when it has to be asked
        self._rebuilding = False  # what the marker must say
        self._pruned_s: dict[bytes, float] = {}

    def check(self) -> None:
        """Errors: StateLost when the server has not everything that was written before."""
        expected = self._expected_marker()
        if self._call([("GET", MATERIALIZER_MARKER)])[0] != expected:
            raise StateLost

    def write(self, commands: Sequence[Command]) -> None:
        """Errors: StateLost as `check`; the commands were done all the same."""
        expected = self._expected_marker()
        marker, *_replies = self._call([("GET", MATERIALIZER_MARKER), *commands])
        if marker != expected:
            raise StateLost

    def mark_rebuilding(self) -> None:
        """Says that this server is being written again from the beginning."""
        self._rebuilding = True
        self._call([("SET", MATERIALIZER_MARKER, self._expected_marker())])

    def mark_complete(self) -> None:
        """Says that this server has everything up to the committed offsets. Errors: StateLost as `check`."""
        self.check()
        self._rebuilding = False
        self._call([("SET", MATERIALIZER_MARKER, self._expected_marker())])

    def unmark(self) -> None:
        """Asks whoever writes here to rebuild."""
        self._call([("DEL", MATERIALIZER_MARKER)])

    def prune(self, keys: Sequence[bytes], every_s: float, limit: int) -> int:
        """Removes expired fields of up to `limit` of these hashes that were not pruned lately; gives back how many."""
        now_s = self._now_s()
        due = [key for key in keys if self._pruned_s.get(key, 0.0) + every_s <= now_s][:limit]
        if not due:
            return 0
        if len(self._pruned_s) > _PRUNED_KEYS:
            self._pruned_s.clear()
        self._pruned_s.update((key, now_s) for key in due)
        replies = self._call([("HKEYS", key) for key in due])
        removals: list[Command] = [
            ("HDEL", key, *gone)
            for key, fields in zip(due, replies, strict=True)
            if (gone := expired_fields(fields, int(now_s)))
        ]
        return sum(self._call(removals)) if removals else 0

    def _expected_marker(self) -> bytes:
        return materializer_marker(self._server_run_id(), self._rebuilding)

    def _server_run_id(self) -> bytes:
        """The run id of the server: another one after every restart."""
        if self._run_id is None:
            found = _RUN_ID.search(self._call([("INFO", "server")])[0])
            if found is None:
                raise Unavailable("valkey: INFO has no run id")
            self._run_id = found.group(1)
        return self._run_id

    def _call(self, commands: Sequence[Command]) -> list[Any]:
        try:
            replies = self._valkey.pipeline(commands)
        except (Unavailable, TimedOut):
            self._run_id = None  # the next connection may reach a restarted server
            raise
        for reply in replies:
            if isinstance(reply, ConnectorError):
                raise reply
        return replies
