"""The comparison itself: it must notice every difference, however small, and name it."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

from rich.console import Console

from infra.demo.drain import settle
from infra.demo.hops import DRUID, HELD, KAFKA, MEASURES, VALKEY, minus
from infra.demo.reconcile import Report, compare, planted_checks, print_report, truth_by_campaign
from infra.simulator.ledger import CampaignTotals, Truth
from schemas.errors import Unavailable

TRUTH = Truth(
    campaigns={"a": CampaignTotals(10, 2, 5, 1234), "house": CampaignTotals(3, 0, 1, 0)},
    duplicates=4,
    late=2,
    rejects=Counter({"token_forged": 1}),
)
WANTED = truth_by_campaign(TRUTH)


def test_equal_counts_are_exact() -> None:
    report = Report(
        compare(WANTED, {hop: WANTED for hop in HELD}),
        planted_checks(TRUTH, 4, 2, 0, 0, 0, Counter({"token_forged": 1})),
    )
    assert report.exact and report.differences == []
    assert all(line.match_share == 1.0 for line in report.lines)


def test_one_micro_too_few_is_wrong_and_named() -> None:
    counts = {c: dict(m) for c, m in WANTED.items()}
    counts["a"]["spend_micros"] -= 1
    report = Report(compare(WANTED, {DRUID: counts}))
    assert not report.exact
    (sentence,) = report.differences
    assert "1,233 spend_micros" in sentence and "campaigns: a" in sentence


def test_errors_that_cancel_out_between_campaigns_are_still_wrong() -> None:
    counts = {c: dict(m) for c, m in WANTED.items()}
    counts["a"]["clicks"] -= 1
    counts["house"]["clicks"] += 1
    (line,) = [line for line in compare(WANTED, {KAFKA: counts}) if line.measure == "clicks"]
    assert line.truth == line.found and not line.exact and line.wrong_campaigns == ("a", "house")


def test_a_hop_is_only_asked_for_what_it_holds() -> None:
    measures = {line.measure for line in compare(WANTED, {VALKEY: {}})}
    assert measures == set(HELD[VALKEY]) < set(MEASURES)


def test_dead_letters_that_nobody_planted_are_wrong() -> None:
    checks = planted_checks(TRUTH, 4, 2, 0, 0, 0, Counter({"token_forged": 1, "registry_miss": 3}))
    assert [c.name for c in checks if not c.exact] == ["dead letters: registry_miss"]


def test_an_expired_token_that_nobody_planted_is_wrong() -> None:
    checks = planted_checks(TRUTH, 4, 2, 0, 1, 0, Counter({"token_forged": 1}))
    assert [c.name for c in checks if not c.exact] == ["expired tokens"]


def test_an_event_of_a_clock_ahead_that_was_not_clamped_is_missed() -> None:
    checks = planted_checks(replace(TRUTH, ahead=3), 4, 2, 2, 0, 0, Counter({"token_forged": 1}))
    assert [c.name for c in checks if not c.exact] == ["clocks a day ahead"]


def test_a_snapshot_is_the_zero_of_a_run() -> None:
    before = {"a": {"clicks": 5, "impressions": 7}, "old": {"clicks": 1}}
    now = {"a": {"clicks": 6, "impressions": 7}, "old": {"clicks": 1}, "new": {"clicks": 2}}
    assert minus(now, before) == {"a": {"clicks": 1, "impressions": 0}, "new": {"clicks": 2}}


def test_settling_waits_for_right_counts_and_rides_out_an_outage() -> None:
    answers = iter([{}, Unavailable("restarting"), {"a": {"clicks": 1}}, {"a": {"clicks": 2}}])

    def read() -> dict[str, dict[str, int]]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert settle(read, lambda counts: counts == {"a": {"clicks": 2}}, quiet_s=30) == {"a": {"clicks": 2}}


def test_settling_gives_up_on_counts_that_stand_still() -> None:
    assert settle(lambda: {"a": {"clicks": 1}}, lambda counts: False, quiet_s=0) == {"a": {"clicks": 1}}


def test_the_printed_report_shows_the_wrong_hop() -> None:
    out = io.StringIO()
    report = Report(compare(WANTED, {DRUID: {}}), planted_checks(TRUTH, 0, 2, 0, 0, 0, Counter()))
    print_report(Console(file=out, width=150), report, "t")
    assert "WRONG: Druid has 0 impressions, the truth is 13" in out.getvalue()
    assert "duplicates" in out.getvalue() and "0.00%" in out.getvalue()
