"""Wins that caps have to count before the stream does: kept per viewer in Valkey, checked and added in one step.

A win's entry lives until the stream has counted its impression, at most for the life of a reservation. Per capped scope
the viewer's hash holds how many impressions the stream had ever counted (`seen`), and the entries since, oldest first.
What the stream has counted beyond `seen` is taken off the oldest entries: as with money (`ledger.py`), what stays is
what ends last. An entry ends only when its life is over *and* the stream has told everything up to then, so no
impression is ever in neither count; it is in both only while a reader holds an older copy of the counters than the
entries were settled with, and then the difference is added: an error is always to the safe side, by at most the
impressions that were counted within one request.

The check is part of the win (`WINS`): of two quick requests, in whatever processes, only one can take the last
impression of a cap. A cap `per` stream counts wins of one session, shown or not, and is kept for `stream_kept_s` after
the last one; per pod is the request itself, which needs no store.
Wins of ads without a cap of their own are added too when something else caps their scope (an advertiser's other
campaign), else their impressions would be taken off entries that they do not belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.valkey_wire import Argument, Command, Script
from schemas.counters import COUNTER_BY_NAME, LIFETIME, LIFETIME_S
from serving.adserver.features.counters import CounterBlob

#: Room of a scope that is only counted: no viewer has so many impressions.
NO_LIMIT = 2**31
#: How long a hash outlives its entries: how long the stream may stand still before a win is forgotten.
KEPT_MS = 3_600_000

#: Kinds of scopes, and the code of the lifetime counter that tells how many impressions the stream has counted.
SCOPE_CODES = {
    scope: COUNTER_BY_NAME[f"user_{scope}_impressions_{LIFETIME.name}"].code
    for scope in ("creative", "campaign", "advertiser")
}

#: Key: a viewer's or stream's pending wins. Arguments: `win` or `undo`, record id, life ms, settled until ms, then per
#: scope its field, the impressions counted ever, and the room that its caps leave. Gives back 0, or the number of the
#: first scope (from 1) that has no room; then nothing was added.
WINS = Script(
    """
local key, op, id, life, settled = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local over = math.min(now, settled)
local fields = {}
for i = 5, #ARGV, 3 do fields[#fields + 1] = ARGV[i] end
local values = redis.call('HMGET', key, unpack(fields))
local changed = {}
for n, field in ipairs(fields) do
  local counted, room = tonumber(ARGV[2 + 3 * n + 1]), tonumber(ARGV[2 + 3 * n + 2])
  local seen, entries, waiting, known = counted, {}, 0, false
  if values[n] then
    seen = tonumber(string.match(values[n], '^%d+') or counted)
    local settle = math.max(0, counted - seen)
    for record, expiry in string.gmatch(values[n], ' ([^ :]+):(%d+)') do
      if op == 'undo' and record == id then
        known = true
      elseif settle > 0 then
        settle = settle - 1
      elseif tonumber(expiry) > over then
        waiting = waiting + 1
        entries[waiting] = record .. ':' .. expiry
        known = known or record == id
      end
    end
  end
  if op == 'win' and not known then
    if waiting + math.max(0, seen - counted) >= room then return n end
    entries[waiting + 1] = id .. ':' .. string.format('%.0f', now + life)
  end
  changed[#changed + 1] = field
  changed[#changed + 1] = string.format('%.0f', math.max(seen, counted)) .. ' ' .. table.concat(entries, ' ')
end
redis.call('HSET', key, unpack(changed))
redis.call('PEXPIRE', key, life + """
    + str(KEPT_MS)
    + """)
return 0
"""
)


def scope_field(code: int, scope: int) -> str:
    """The field of a scope: the code of its kind's lifetime counter, and its hash."""
    return f"{code}:{scope}"


def scope_of(field: str) -> int:
    """The hash of a field's scope.

    Example:
    >>> scope_of(scope_field(10, 77))
    77
    """
    return int(field.partition(":")[2] or 0)


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of an ad whose wins are kept. `code` is that of its lifetime counter."""

    code: int
    scope: int

    @property
    def field(self) -> str:
        return scope_field(self.code, self.scope)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one win asks of a viewer's or a stream's caps. `scopes`: field, impressions counted ever, room."""

    key: bytes
    life_ms: int
    settled_ms: int
    scopes: tuple[tuple[str, int, int], ...]

    def win(self, record_id: str) -> Command:
        """Adds the win if there is room in all scopes. Repeated for a record id, it changes nothing."""
        return self._call("win", record_id)

    def undo(self, record_id: str) -> Command:
        """Takes a win back that did not come about."""
        return self._call("undo", record_id)

    def _call(self, operation: str, record_id: str) -> Command:
        arguments: list[Argument] = [operation, record_id, self.life_ms, self.settled_ms]
        for scope in self.scopes:
            arguments += scope
        return WINS.call((self.key,), arguments)


class PendingWins:
    """A viewer's or a stream's wins as they were read, by field of a scope. Bad values count as none: the win's own
    check decides."""

    __slots__ = ("_found",)

    def __init__(self, reply: Sequence[bytes] = ()) -> None:
        self._found: dict[str, tuple[int, list[int]]] = {}
        for name, value in zip(reply[0::2], reply[1::2], strict=True):
            try:
                field = name.decode()
                scope_of(field)
                seen, *entries = value.decode().split()
                self._found[field] = int(seen), [int(entry.rpartition(":")[2]) for entry in entries]
            except ValueError:  # of another layout, or no text at all
                continue

    def waiting(self, field: str, counted: int, now_ms: int) -> int:
        """Wins of a scope that the stream has not counted, given what it has counted ever."""
        found = self._found.get(field)
        if found is None:
            return 0
        seen, expiries_ms = found
        still = sum(expiry_ms > now_ms for expiry_ms in expiries_ms[max(0, counted - seen) :])
        return still + max(0, seen - counted)

    def scopes(self) -> list[int]:
        """Hashes of the scopes that something is under way for."""
        return [scope_of(field) for field in self._found]

    def __bool__(self) -> bool:
        return bool(self._found)


def counted_ever(viewer: CounterBlob, code: int, scope: int) -> int:
    """Impressions of a scope that the stream has counted for a viewer, ever."""
    return viewer.sums(code, 0, LIFETIME_S).get(scope, 0)
