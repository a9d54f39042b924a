"""The budget's ledger in Valkey: what a campaign has spent, what is reserved for wins, what is leased to servers.

One script changes it, whole or not at all, on Valkey's clock, so any number of servers may win at once. Operations:

| operation | what happens | repeated |
| --- | --- | --- |
| `reserve` | a win's price is held until it is shown, at most for a life | the same grant |
| `lease` | a server gets the price of many wins at once, to give away itself | the same grant |
| `return` | a lease ends: what was not given away is free again | nothing |
| `release` | a win that could not be written down is undone | nothing |
| `settle` | nothing but what every operation begins with | the same |

Every operation first takes notice of what has been committed and of what has expired:
- **Commit.** The stream writes the campaign's spend as absolute micros, each event once (deduplicated by event id, and
  so by record id): committing twice, or in any order, is the same number. It does not say whose impression it was, so
  what is newly committed is taken off the oldest reservations. That is the safe choice: what stays is what expires
  last. The highest spend ever seen counts, so a spend that is written again after a loss gives no money away.
- **Release.** A reservation ends when its life is over *and* the stream has told everything up to then
  (`settled_ms`, from `m:progress`): while the stream stands still nothing is released, because an impression may be
  on its way. So no impression is ever in neither sum; it is in both for no longer than between the stream's write and
  the next operation on its campaign, and readers only see what an operation left behind.

Invariant, for the day and for the lifetime: after every operation that grants,
    committed + reserved + leased <= budget.
`total` is the sum of all amounts (each change of one is a change of both). A grant of p happens only if
p <= budget - committed - total, and adds p to total. A commit of d adds d to committed and takes min(d, total) from
total; a release takes from total what can't be committed any more: a win whose life is over is not shown (the answer
says until when it may be: OpenRTB 2.6 §4.2.3 `bid.exp`, VAST 4 `Expires`). Of a campaign that is paid by clicks or
completed views (`Budget.per_event`) a life is as long as those may come, and its amount is that of the event. So the
sum grows by grants alone, and by what happened after its life: that is counted (`late_micros`) and takes from what is
left to grant. A lease's wins are shown within the life
that begins with the last of them, and its amount is held that long: a server may be killed with it, and the money
comes back by itself. All of this is in Valkey's append-only file before a server hears of it, with `appendfsync no`
(a killed Valkey forgets nothing; a machine that loses power forgets what its kernel had not written) and with `always`
(nor does the machine). Not with `everysec`, which puts writes off while a sync is under way: a killed Valkey could
forget the grants of up to two seconds whose ads are shown all the same. infra/local/platform.py, docs/operations.md.

A day is a UTC day of Valkey's clock. A reservation counts against the day that it is in, so after midnight wins of the
old day are held from the new day's budget until they are shown: whichever day the impression falls into, it fits.
Numbers are doubles in Lua: exact to 2^53 micros (nine billion units).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.valkey_wire import Argument, Command, Script
from schemas.ids import encode_id
from schemas.redis_layout import reserved_amounts_key, reserved_key, spend_key

#: A lease takes at most this share of what is left, so that servers that come later find some too.
LEASE_SHARE_OF_HEADROOM = 8

#: Keys: spend, reserved, amounts. Arguments: operation, id, micros, daily budget, lifetime budget (0: none), life ms,
#: settled until ms, least useful micros of a lease. The amounts hash holds record and lease ids (22 and 23 characters),
#: `L<lease id>` -> micros of leases that are not returned, and the ledger's own fields, all shorter than an id.
LEDGER = Script(
    """
local spend, reserved, amounts = KEYS[1], KEYS[2], KEYS[3]
local op, id, micros = ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number) return string.format('%.0f', number + 0) end -- of -0, 0

-- the proleptic Gregorian date of a day number (H. Hinnant, "chrono-compatible low-level date algorithms")
local function yyyymmdd(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d%02d%02d', year, month, day)
end

local function is_lease(entry) return #entry == 23 end
local function amount_of(entry) return tonumber(redis.call('HGET', amounts, entry) or 0) end
local function change(entry, delta)
  redis.call('HINCRBY', amounts, entry, text(delta))
  redis.call('HINCRBY', amounts, 'total', text(delta))
end
local function remove(entry, amount)
  redis.call('ZREM', reserved, entry)
  redis.call('HDEL', amounts, entry, 'L' .. entry)
  redis.call('HINCRBY', amounts, 'total', text(-amount))
end

-- takes micros off the oldest entries; gives back what found none. An open lease stays, so that it can be returned.
local function take(left)
  local kept = 0
  while left > 0 do
    local entries = redis.call('ZRANGE', reserved, kept, kept + 15)
    if #entries == 0 then break end
    for _, entry in ipairs(entries) do
      if left <= 0 then break end
      local amount = amount_of(entry)
      if amount > left then
        change(entry, -left)
        left = 0
      else
        left = left - amount
        if is_lease(entry) and redis.call('HEXISTS', amounts, 'L' .. entry) == 1 then
          if amount > 0 then change(entry, -amount) end
          kept = kept + 1
        else
          remove(entry, amount)
        end
      end
    end
  end
  return left
end

local day = yyyymmdd(math.floor(now / 86400000))
local told = redis.call('HMGET', spend, day, 'total')
local known = redis.call('HMGET', amounts, 'day', 'seen_day', 'seen_ever')
local ever = math.max(tonumber(told[2] or 0), tonumber(known[3] or 0))
local committed, seen = tonumber(told[1] or 0), 0
if known[1] == day then seen = tonumber(known[2] or 0) end
if committed > seen or known[1] ~= day then
  local homeless = committed > seen and take(committed - seen) or 0
  if homeless > 0 and known[1] then redis.call('HINCRBY', amounts, 'late', text(homeless)) end
  redis.call('HSET', amounts, 'day', day, 'seen_day', text(committed))
else
  committed = seen
end
if ever > tonumber(known[3] or 0) then redis.call('HSET', amounts, 'seen_ever', text(ever)) end

local over = redis.call('ZRANGEBYSCORE', reserved, '-inf', math.min(now, tonumber(ARGV[7])), 'LIMIT', 0, 1000)
for _, entry in ipairs(over) do
  local amount = amount_of(entry)
  remove(entry, amount)
  if amount > 0 then redis.call('HINCRBY', amounts, 'released', text(amount)) end
end

local sums = redis.call('HMGET', amounts, 'total', 'released', 'late')
local total = tonumber(sums[1] or 0)
local headroom = tonumber(ARGV[4]) - committed
if tonumber(ARGV[5]) > 0 then headroom = math.min(headroom, tonumber(ARGV[5]) - ever) end
headroom = headroom - total
local granted = 0

local function hold(amount)
  redis.call('HSET', amounts, id, text(amount))
  redis.call('HINCRBY', amounts, 'total', text(amount))
  redis.call('ZADD', reserved, now + tonumber(ARGV[6]), id)
  local kept = tonumber(ARGV[6]) + 2 * 86400000
  redis.call('PEXPIRE', reserved, kept)
  redis.call('PEXPIRE', amounts, kept)
  granted, total, headroom = amount, total + amount, headroom - amount
end

if op == 'reserve' then
  if redis.call('HEXISTS', amounts, id) == 1 then
    granted = micros
  elseif micros <= headroom then
    hold(micros)
  end
elseif op == 'lease' then
  local before = redis.call('HGET', amounts, 'L' .. id)
  local share = math.min(micros, math.floor(headroom / """
    + str(LEASE_SHARE_OF_HEADROOM)
    + """))
  if before then
    granted = tonumber(before)
  elseif share >= tonumber(ARGV[8]) then
    hold(share)
    redis.call('HSET', amounts, 'L' .. id, text(share))
  end
elseif op == 'return' then
  local lease = redis.call('HGET', amounts, 'L' .. id)
  if lease then
    redis.call('HDEL', amounts, 'L' .. id)
    micros = math.min(micros, tonumber(lease))
    local own = amount_of(id)
    local back = math.min(own, micros)
    if back == own then remove(id, own) else change(id, -back) end
    -- the lease's own money may have settled others' impressions, whose reservations then stand in for it
    local rest = take(micros - back)
    total, headroom = total - micros + rest, headroom + micros - rest
  end
elseif op == 'release' then
  if redis.call('HEXISTS', amounts, id) == 1 then
    local amount = amount_of(id)
    remove(id, amount)
    total, headroom = total - amount, headroom + amount
  end
end
return {granted, headroom, committed, ever, total, tonumber(sums[2] or 0), tonumber(sums[3] or 0)}
"""
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a campaign may spend: in a UTC day, and in its life (0: no such limit). Micros. `per_event`: some of it is
    for clicks or completed views, which come later than impressions.
    """

    campaign_id: str
    daily_micros: int
    lifetime_micros: int = 0
    per_event: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """The budget that a win needs. Integer micros."""

    budget: Budget
    price_micros: int

    @property
    def campaign_id(self) -> str:
        return self.budget.campaign_id


@dataclass(frozen=True, slots=True)
class Account:
    """How a campaign's ledger stood after an operation, and what that granted. Micros.

    `headroom_micros` is what may still be granted; `released_micros` what ever expired unshown, `late_micros` what was
    ever committed without a reservation.
    """

    granted_micros: int
    headroom_micros: int
    committed_micros: int
    committed_ever_micros: int
    reserved_micros: int
    released_micros: int
    late_micros: int


def account(reply: Sequence[int]) -> Account:
    """The script's answer."""
    return Account(*reply)


def lease_id(random: bytes) -> str:
    """The id of a lease, of 16 random bytes: a character longer than a record's.

    Example:
    >>> len(lease_id(bytes(16)))
    23
    """
    return "L" + encode_id(random)


def ledger_keys(campaign_id: str) -> tuple[bytes, bytes, bytes]:
    return spend_key(campaign_id), reserved_key(campaign_id), reserved_amounts_key(campaign_id)


def operation(
    name: str,
    budget: Budget,
    settled_ms: int,
    entry_id: str = "",
    micros: int = 0,
    life_ms: int = 0,
    least_micros: int = 1,
) -> Command:
    """A call of the ledger. `settled_ms`: until when (epoch) all spend is known to be written."""
    arguments: tuple[Argument, ...] = (
        name,
        entry_id,
        micros,
        budget.daily_micros,
        budget.lifetime_micros,
        life_ms,
        settled_ms,
        least_micros,
    )
    return LEDGER.call(ledger_keys(budget.campaign_id), arguments)
