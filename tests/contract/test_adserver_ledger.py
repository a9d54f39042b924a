"""The budget's ledger and the pending wins of caps on a real Valkey, against plain models in every order of events."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from schemas.ids import encode_id
from schemas.redis_layout import TOTAL_SPEND, pending_key, reserved_amounts_key, reserved_key, spend_key, user_key
from serving.adserver.limits.ledger import LEDGER, Account, Budget, account, lease_id, ledger_keys, operation
from serving.adserver.limits.pending import KEPT_MS as PENDING_KEPT_MS
from serving.adserver.limits.pending import NO_LIMIT, WINS, Claim, PendingWins

LONG_MS = 600_000
STEPS = settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def valkey(local_services: Endpoints) -> Iterator[Valkey]:
    with Valkey(local_services.valkey_url) as connection:
        yield connection


def _id() -> str:
    return encode_id(uuid.uuid4().bytes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _today() -> str:
    return time.strftime("%Y%m%d", time.gmtime())


class Ledger:
    """The ledger of one campaign, with everything that a test needs of it."""

    def __init__(self, valkey: Valkey, daily_micros: int, lifetime_micros: int = 0) -> None:
        self.valkey = valkey
        self.budget = Budget(f"cmp-{uuid.uuid4().hex}", daily_micros, lifetime_micros)

    def call(
        self, name: str, entry: str = "", micros: int = 0, life_ms: int = LONG_MS, settled_ms: int = 0, least: int = 1
    ) -> Account:
        command = operation(name, self.budget, settled_ms, entry, micros, life_ms, least)
        return account(self.valkey.eval(LEDGER, ledger_keys(self.budget.campaign_id), command[6:]))

    def commit(self, day_micros: int, ever_micros: int | None = None) -> None:
        """What the materializer writes: absolute micros."""
        ever = day_micros if ever_micros is None else ever_micros
        self.valkey.call("HSET", spend_key(self.budget.campaign_id), _today(), day_micros, TOTAL_SPEND, ever)

    def kept(self) -> dict[bytes, bytes]:
        reply = self.valkey.call("HGETALL", reserved_amounts_key(self.budget.campaign_id))
        return dict(zip(reply[0::2], reply[1::2], strict=True))


def test_a_lease_is_given_away_here_and_its_rest_returned_once(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 80_000)
    lease = lease_id(bytes(16))
    assert ledger.call("lease", lease, 5_000).granted_micros == 5_000
    assert ledger.call("lease", lease, 5_000).granted_micros == 5_000, "asked again, the same"
    assert ledger.call("settle").headroom_micros == 75_000
    for _ in range(3):
        assert ledger.call("return", lease, 3_000).headroom_micros == 78_000
    ledger.commit(2_000)
    assert ledger.call("settle") == Account(0, 78_000, 2_000, 2_000, 0, 0, 0)


def test_leases_end_before_the_budget_does(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 80_000)
    assert ledger.call("lease", lease_id(b"a" * 16), 50_000).granted_micros == 10_000, "an eighth of what is left"
    assert ledger.call("reserve", _id(), 65_000).granted_micros == 65_000
    assert ledger.call("lease", lease_id(b"b" * 16), 50_000, least=1_000).granted_micros == 0
    assert ledger.call("reserve", _id(), 5_000).granted_micros == 5_000, "to the last micro, one by one"
    assert ledger.call("settle").headroom_micros == 0


def test_money_of_a_killed_server_comes_back_by_itself(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 80_000)
    lease = lease_id(bytes(16))
    ledger.call("lease", lease, 9_000, life_ms=1)
    ledger.call("reserve", _id(), 1_000, life_ms=1)
    time.sleep(0.01)
    assert ledger.call("settle").headroom_micros == 70_000, "the stream has not told everything up to then"
    found = ledger.call("settle", settled_ms=_now_ms())
    assert (found.headroom_micros, found.released_micros, found.reserved_micros) == (80_000, 10_000, 0)
    assert ledger.call("return", lease, 9_000).headroom_micros == 80_000, "what is over is not returned again"
    assert valkey.call("EXISTS", reserved_key(ledger.budget.campaign_id)) == 0


def test_nothing_is_released_while_the_stream_stands_still(valkey: Valkey) -> None:
    """An impression that was shown in time and is told late is in a sum at every moment."""
    ledger = Ledger(valkey, 1_000)
    ledger.call("reserve", _id(), 1_000, life_ms=1)
    time.sleep(0.01)
    assert ledger.call("reserve", _id(), 1, settled_ms=1).granted_micros == 0
    ledger.commit(1_000)
    found = ledger.call("reserve", _id(), 1, settled_ms=_now_ms())
    assert (found.granted_micros, found.committed_micros, found.reserved_micros) == (0, 1_000, 0)


def test_what_comes_late_is_counted_and_takes_what_is_left(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 1_000)
    ledger.call("reserve", _id(), 600, life_ms=1)
    time.sleep(0.01)
    ledger.call("settle", settled_ms=_now_ms())
    ledger.commit(600)
    found = ledger.call("reserve", _id(), 600)
    assert (found.granted_micros, found.headroom_micros, found.late_micros) == (0, 400, 600)


def test_a_lifetime_budget_ends_what_a_day_would_allow(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 10_000, lifetime_micros=5_000)
    ledger.commit(0, 4_500)
    assert ledger.call("reserve", _id(), 501).granted_micros == 0
    assert ledger.call("reserve", _id(), 500).granted_micros == 500
    valkey.call("DEL", spend_key(ledger.budget.campaign_id))
    assert ledger.call("settle").headroom_micros == 0, "spend that is written again gives no money away"


def test_a_released_win_is_forgotten(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 1_000)
    record = _id()
    ledger.call("reserve", record, 1_000)
    for _ in range(2):
        assert ledger.call("release", record).headroom_micros == 1_000
    assert not {name for name in ledger.kept() if len(name) >= 22}


def test_the_ledger_speaks_of_the_same_day_as_the_calendar(valkey: Valkey) -> None:
    ledger = Ledger(valkey, 1_000)
    before = _today()
    ledger.call("settle")
    assert ledger.kept()[b"day"].decode() in (before, _today())


class LedgerMachine(RuleBasedStateMachine):
    """Wins, leases, impressions, kills, replays and expiries of a campaign in any order.

    The model is a list of what is open. Expiry is by `settled_ms` alone: entries live a moment, and are over when the
    machine says that the stream has told everything.
    """

    valkey: Valkey

    @initialize(daily=st.integers(0, 4_000), lifetime=st.sampled_from([0, 0, 2_500]))
    def begin(self, daily: int, lifetime: int) -> None:
        self.ledger = Ledger(self.valkey, daily, lifetime)
        self.limit = min(daily, lifetime) if lifetime else daily
        self.open: dict[str, int] = {}  # reservations that may still be shown
        self.leases: dict[str, list[int]] = {}  # id -> [not given away, given away and not shown]
        self.closed_leases: dict[str, int] = {}  # given away by leases that were returned, and not shown
        self.committed = 0
        self.replays: list[tuple[str, str, int]] = []

    def _held(self) -> int:
        return sum(self.open.values()) + sum(map(sum, self.leases.values())) + sum(self.closed_leases.values())

    @rule(price=st.integers(1, 700))
    def win(self, price: int) -> None:
        record = _id()
        left = self.limit - self.committed - self._held()
        granted = self.ledger.call("reserve", record, price).granted_micros
        assert granted == (price if price <= left else 0), "granted exactly while there is money"
        if granted:
            self.open[record] = price
            self.replays.append(("reserve", record, price))

    @rule(wanted=st.integers(1, 2_000), least=st.integers(1, 300))
    def lease(self, wanted: int, least: int) -> None:
        entry = lease_id(uuid.uuid4().bytes)
        left = self.limit - self.committed - self._held()
        granted = self.ledger.call("lease", entry, wanted, least=least).granted_micros
        share = min(wanted, left // 8)
        assert granted == (share if share >= least else 0)
        if granted:
            self.leases[entry] = [granted, 0]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), price=st.integers(1, 200))
    def win_by_lease(self, data: st.DataObject, price: int) -> None:
        lease = self.leases[data.draw(st.sampled_from(list(self.leases)))]
        if price <= lease[0]:
            lease[0] -= price
            lease[1] += price

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), twice=st.booleans())
    def end_lease(self, data: st.DataObject, twice: bool) -> None:
        entry = data.draw(st.sampled_from(list(self.leases)))
        rest, given = self.leases.pop(entry)
        for _ in range(1 + twice):
            self.ledger.call("return", entry, rest)
        if given:
            self.closed_leases[entry] = given

    @precondition(lambda self: self.open or any(g for _, g in self.leases.values()) or self.closed_leases)
    @rule(data=st.data(), twice=st.booleans())
    def impression(self, data: st.DataObject, twice: bool) -> None:
        """The stream commits absolute spend, whose impression it was it does not say."""
        given = [entry for entry, (_, given) in self.leases.items() if given]
        entry = data.draw(st.sampled_from([*self.open, *given, *self.closed_leases]))
        if entry in self.open:
            self.committed += self.open.pop(entry)
        elif entry in self.leases:
            self.committed += self.leases[entry][1]
            self.leases[entry][1] = 0
        else:
            self.committed += self.closed_leases.pop(entry)
        for _ in range(1 + twice):
            self.ledger.commit(self.committed)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """A win that could not be written down. Only before its money may have settled another's impression."""
        if not self.committed:
            record = data.draw(st.sampled_from(list(self.open)))
            del self.open[record]
            self.replays = [r for r in self.replays if r[1] != record]
            self.ledger.call("release", record)

    @precondition(lambda self: self.replays)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A win that is asked for again while it is open."""
        name, record, price = data.draw(st.sampled_from(self.replays))
        if not self.committed:
            assert self.ledger.call(name, record, price).granted_micros == price

    @rule()
    def rebuild(self) -> None:
        """The spend is gone, and is written again."""
        self.valkey.call("DEL", spend_key(self.ledger.budget.campaign_id))
        self.ledger.call("settle")
        self.ledger.commit(self.committed)

    @invariant()
    def sums_agree(self) -> None:
        found = self.ledger.call("settle")
        assert found.committed_micros == self.committed
        assert found.reserved_micros == self._held(), "what may still be shown is held, and nothing else"
        assert self.committed + self._held() <= max(self.limit, 0)
        kept = self.ledger.kept()
        assert sum(int(v) for name, v in kept.items() if len(name) in (22, 23)) == found.reserved_micros

    def teardown(self) -> None:
        """After the sweep nothing is stranded."""
        if not hasattr(self, "ledger"):
            return  # a run that ended before it began
        for entry in self.leases:
            self.ledger.call("return", entry, 2**53)
        expired = ("ZADD", reserved_key(self.ledger.budget.campaign_id), "XX", 1)
        for entry in self.valkey.call("ZRANGE", reserved_key(self.ledger.budget.campaign_id), 0, -1):
            self.valkey.call(*expired, entry)
        found = self.ledger.call("settle", settled_ms=2)
        assert found.reserved_micros == 0 and found.headroom_micros == self.limit - self.committed
        assert found.late_micros == 0


def test_ledger_in_every_order(valkey: Valkey) -> None:
    LedgerMachine.valkey = valkey
    run_state_machine_as_test(LedgerMachine, settings=STEPS)


@dataclass
class _Viewer:
    """Impressions of a viewer in one scope: shown ones, and wins that may be shown."""

    counted: int = 0
    open: list[str] = field(default_factory=list)


class CapsMachine(RuleBasedStateMachine):
    """Requests of a viewer for ads of two campaigns of one advertiser, on servers with older and newer copies of the
    counters: wins and impressions never pass a cap, and a free place is never refused once counters are up to date."""

    valkey: Valkey
    FIELDS = ("11:1", "11:2", "12:9")  # two campaigns and their advertiser

    @initialize(limits=st.tuples(*[st.integers(0, 4)] * 3))
    def begin(self, limits: tuple[int, int, int]) -> None:
        self.key = pending_key(user_key(f"v1:{uuid.uuid4().hex}"))
        self.limits = dict(zip(self.FIELDS, limits, strict=True))
        self.counted: Counter[str] = Counter()
        self.older: list[Counter[str]] = [Counter()]
        self.open: dict[str, str] = {}  # record -> campaign's field
        self.is_exact = True

    def _claim(self, campaign: str, copy: Counter[str]) -> Claim:
        scopes = tuple((f, copy[f], self.limits[f] - copy[f]) for f in (campaign, "12:9"))
        return Claim(self.key, LONG_MS, 0, scopes)

    def _run(self, campaign: str, copy: Counter[str], record: str) -> bool:
        claim = self._claim(campaign, copy)
        return bool(self.valkey.eval(WINS, (self.key,), claim.win(record)[4:]) == 0)

    @rule(campaign=st.sampled_from(["11:1", "11:2"]), is_late=st.booleans(), twice=st.booleans())
    def request(self, campaign: str, is_late: bool, twice: bool) -> None:
        copy = self.older[-1 - (is_late and len(self.older) > 1)]
        is_newest = copy == self.counted
        waiting = Counter([*self.open.values(), *["12:9"] * len(self.open)])
        room = all(self.counted[f] + waiting[f] < self.limits[f] for f in (campaign, "12:9"))
        record = _id()
        won = [self._run(campaign, copy, record) for _ in range(1 + twice)]
        assert len(set(won)) == 1, "asked again, the same"
        if won[0]:
            assert room, "a cap is never passed, whatever copy a server holds"
            self.open[record] = campaign
        elif room and is_newest:
            raise AssertionError("refused although there was room")

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def impression(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(list(self.open)))
        campaign = self.open.pop(record)
        self.counted.update([campaign, "12:9"])
        self.older = [*self.older[-1:], Counter(self.counted)]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """Before its entry may have been taken off for another's impression."""
        if not self.counted:
            record = data.draw(st.sampled_from(list(self.open)))
            campaign = self.open.pop(record)
            self.valkey.eval(WINS, (self.key,), self._claim(campaign, self.counted).undo(record)[4:])

    @invariant()
    def never_more_than_allowed(self) -> None:
        waiting = Counter([*self.open.values(), *["12:9"] * len(self.open)])
        assert all(self.counted[f] + waiting[f] <= max(self.limits[f], 0) for f in self.FIELDS)
        pending = PendingWins(self.valkey.call("HGETALL", self.key))
        for name in self.FIELDS:
            assert pending.waiting(name, self.counted[name], _now_ms()) == waiting[name]


def test_caps_in_every_order(valkey: Valkey) -> None:
    CapsMachine.valkey = valkey
    run_state_machine_as_test(CapsMachine, settings=STEPS)


def test_a_win_that_is_never_shown_makes_room_when_the_stream_has_told_everything(valkey: Valkey) -> None:
    key = pending_key(user_key(f"v1:{uuid.uuid4().hex}"))

    def win(settled_ms: int) -> int:
        claim = Claim(key, 1, settled_ms, (("11:1", 0, 1),))
        return int(valkey.eval(WINS, (key,), claim.win(_id())[4:]))

    assert win(0) == 0
    time.sleep(0.01)
    assert win(0) == 1, "no room in the first scope: the impression may be on its way"
    assert win(_now_ms()) == 0
    assert 0 < valkey.call("PTTL", key) <= PENDING_KEPT_MS + 1


def test_scopes_that_nothing_limits_are_only_counted(valkey: Valkey) -> None:
    key = pending_key(user_key(f"v1:{uuid.uuid4().hex}"))
    claim = Claim(key, LONG_MS, 0, (("11:1", 3, NO_LIMIT),))
    for _ in range(3):
        assert valkey.eval(WINS, (key,), claim.win(_id())[4:]) == 0
    pending = PendingWins(valkey.call("HGETALL", key))
    assert [pending.waiting("11:1", counted, _now_ms()) for counted in (2, 3, 5, 9)] == [4, 3, 1, 0]


def test_a_win_replaces_what_is_of_another_layout(valkey: Valkey) -> None:
    key = pending_key(user_key(f"v1:{uuid.uuid4().hex}"))
    valkey.call("HSET", key, "11:1", "of another layout")
    claim = Claim(key, LONG_MS, 0, (("11:1", 3, 1),))
    assert [valkey.eval(WINS, (key,), claim.win(_id())[4:]) for _ in range(2)] == [0, 1]
    assert PendingWins(valkey.call("HGETALL", key)).waiting("11:1", 3, _now_ms()) == 1
