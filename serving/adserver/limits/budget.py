"""Budgets: no win without money for it, however many servers win at once.

A win reserves its price for `reservation_s`; it is granted while committed spend of the day + live reservations +
price <= daily budget. Spend is committed by the stream (absolute micros per campaign and UTC day); what it commits is
taken off the oldest reservations, because the stream does not say whose impression it was. Oldest first is the safe
choice: the reservations that remain are those that expire last, so what may still be spent is never underestimated.

An impression that comes after its reservation has expired is charged all the same, so keep `reservation_s` above the
time between decision and impression. A CPC win reserves the price of its click.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.valkey import Argument, Script
from schemas.features import MINUTE_S
from schemas.money import impression_cost_micros
from schemas.redis_layout import OpenWins, reserved_amounts_key, reserved_key, spend_key

#: How often wins are confirmed before a campaign has any of its own to tell, and how many wins that belief is worth.
CONFIRMED_SHARE, CONFIRMED_PRIOR_WINS = 0.9, 20.0

#: One call for one win. Keys: spend, reserved, amounts. Arguments: record id, price, daily budget, day, life ms.
#: Gives back {granted 0|1, micros left before this win}. The amounts hash also holds two fields that no record id can
#: be (they are shorter): `total`, and `seen:<day>`, the committed spend that reservations were settled against; its
#: highest value counts as committed, so that a spend key that is being rebuilt gives no money away.
#: The clock is the server's: several ad servers then agree on what has expired. Numbers are doubles in Lua: exact to
#: 2^53 micros (nine billion units a day).
RESERVE = Script("""
local spend, reserved, amounts = KEYS[1], KEYS[2], KEYS[3]
local record, price, budget, day = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function release(id, amount)
  redis.call('ZREM', reserved, id)
  redis.call('HDEL', amounts, id)
  redis.call('HINCRBY', amounts, 'total', string.format('%.0f', -amount))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', reserved, '-inf', now)) do
  release(id, tonumber(redis.call('HGET', amounts, id) or 0))
end

local committed = tonumber(redis.call('HGET', spend, day) or 0)
local seen_field = 'seen:' .. day
local seen = tonumber(redis.call('HGET', amounts, seen_field) or 0)
if committed > seen then
  local left = committed - seen
  while left > 0 do
    local id = redis.call('ZRANGE', reserved, 0, 0)[1]
    if not id then break end
    local amount = tonumber(redis.call('HGET', amounts, id) or 0)
    if amount <= left then
      release(id, amount)
      left = left - amount
    else
      redis.call('HINCRBY', amounts, id, string.format('%.0f', -left))
      redis.call('HINCRBY', amounts, 'total', string.format('%.0f', -left))
      left = 0
    end
  end
  redis.call('HSET', amounts, seen_field, string.format('%.0f', committed))
else
  committed = seen
end

local headroom = budget - committed - tonumber(redis.call('HGET', amounts, 'total') or 0)
if redis.call('HEXISTS', amounts, record) == 1 then return {1, headroom} end
if price > headroom then return {0, headroom} end
redis.call('HSET', amounts, record, string.format('%.0f', price))
redis.call('HINCRBY', amounts, 'total', string.format('%.0f', price))
redis.call('ZADD', reserved, now + tonumber(ARGV[5]), record)
local life = tonumber(ARGV[5]) + 2 * 86400000
redis.call('PEXPIRE', reserved, life)
redis.call('PEXPIRE', amounts, life)
return {1, headroom}
""")


def reserve_keys(campaign_id: str) -> tuple[bytes, bytes, bytes]:
    return spend_key(campaign_id), reserved_key(campaign_id), reserved_amounts_key(campaign_id)


def reserve_arguments(
    record_id: str, price_micros: int, daily_budget_micros: int, day: str, life_ms: int
) -> tuple[Argument, ...]:
    return record_id, price_micros, daily_budget_micros, day, life_ms


def price_of_win(pricing: str, bid_micros: int) -> int:
    """The most that one win of a line item can cost: an impression's share of its CPM, or its click.

    Example:
    >>> price_of_win("cpm", 2_500_000), price_of_win("cpc", 400_000)
    (2500, 400000)
    """
    return bid_micros if pricing == "cpc" else impression_cost_micros(bid_micros)


@dataclass(frozen=True, slots=True)
class InFlight:
    """What a campaign has won and not yet spent: all of it, and what is likely to be spent. Micros."""

    open_micros: int
    predicted_micros: int


def in_flight(minutes: Mapping[int, OpenWins], now_s: int, win_open_s: int) -> InFlight:
    """Spend in flight from the wins by minute of decision (epoch s).

    A win is open while its minute is not over for longer than `win_open_s`. How likely it is confirmed is the share
    of older wins that were, shrunk to `CONFIRMED_SHARE`.

    Example:
    >>> old, young = OpenWins(100_000, 60_000, 80, 48), OpenWins(10_000, 2_000, 8, 2)
    >>> in_flight({0: old, 3600: young}, now_s=3700, win_open_s=900)
    InFlight(open_micros=8000, predicted_micros=5280)
    """
    oldest_s = now_s - win_open_s - MINUTE_S
    over = [m for start_s, m in minutes.items() if start_s <= oldest_s]
    confirmed = sum(m.confirmed_wins for m in over) + CONFIRMED_SHARE * CONFIRMED_PRIOR_WINS
    share = confirmed / (sum(m.wins for m in over) + CONFIRMED_PRIOR_WINS)
    open_micros = sum(m.won_micros - m.confirmed_micros for start_s, m in minutes.items() if start_s > oldest_s)
    return InFlight(open_micros, round(open_micros * share))
