"""Upstream logs: lines of the documented forms, and what is done with lines that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Reject, RejectReason
from schemas.upstream import ORIGINAL_TIME, Rebase, record_of
from schemas.upstream_formats import FORMATS, parse_line

COLUMNS = (
    *("b1d", "20131021120000250", "1", "Us3r", "Mozilla/5.0 (iPad; CPU OS 7_0)", "10.1.2.*", "80", "85", "2"),
    *("d0main", "url", "null", "slot-1", "300", "250", "FirstView", "Na", "20", "cr7", "294", "201", "null"),
    *("2821", "10063,10006"),
)
LINE = "\t".join(COLUMNS)


def changed(index: int, value: str) -> str:
    return "\t".join([*COLUMNS[:index], value, *COLUMNS[index + 1 :]])


def test_an_impression_in_our_names() -> None:
    (event,) = parse_line("ipinyou-impression", LINE, "f:1")
    assert (event.event_type, event.upstream_id, event.user, event.ip) == ("impression", "b1d", "Us3r", "10.1.2.*")
    assert event.original_time_ms == 1_382_328_000_250  # noon in China is 04:00 UTC
    assert event.attributes["impression_cost_micros"] == "2010"  # 201 fen CPM = 2.01 CNY per 1,000
    assert event.attributes["bid_cpm_micros"] == "2940000"
    assert event.attributes["currency"] == "CNY"
    assert (event.attributes["device_type"], event.attributes["platform"]) == ("tablet", "ios")
    assert event.attributes["slot_size"] == "300x250"
    record = record_of("AAAAAAAAAAAAAAAAAAAAAA", event.attributes, "v1:u", None, 5)
    assert not isinstance(record, Reject)
    assert (record.campaign_id, record.impression_cost_micros, record.placement_id) == ("ipinyou-2821", 2010, "slot-1")


def test_no_identifier_is_left_in_attributes() -> None:
    (event,) = parse_line("ipinyou-impression", LINE, "f:1")
    kept = " ".join(event.attributes.values())
    assert "Us3r" not in kept
    assert "10.1.2" not in kept
    assert "Mozilla" not in kept


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "1 columns"),
        ("\t".join(COLUMNS[:23]), "23 columns"),
        (LINE + "\tmore", "25 columns"),
        (changed(0, "null"), "bid id"),
        (changed(1, "2013102112000025"), "yyyyMMddHHmmssSSS"),
        (changed(1, "20131321120000250"), "month must be"),
        (changed(20, "2.5"), "paying price"),
        (changed(20, "-1"), "paying price"),
        (changed(20, "\u0662"), "paying price"),
        (changed(18, ""), "creative id"),
        (changed(22, "null"), "advertiser id"),
    ],
)
def test_a_malformed_line_says_which_column(line: str, why: str) -> None:
    found = parse_line("ipinyou-impression", line, "f:1")
    assert isinstance(found, Reject)
    assert found.reason is RejectReason.MALFORMED_LINE
    assert why in found.detail


def test_a_click_and_its_install() -> None:
    click, install = parse_line("talkingdata-click", "83230,3,1,13,379,2017-11-06 14:32,2017-11-07 08:17:19,1", "td:9")
    assert (click.event_type, install.event_type) == ("click", "conversion")
    assert click.user == install.user == "83230|1|13"
    assert click.upstream_id == install.upstream_id == "td:9"
    assert install.order_id == "talkingdata-td:9"
    assert install.original_time_ms - click.original_time_ms == 63_919_000  # 17 h 45 min 19 s


def test_equal_clicks_on_two_lines_are_two_ads() -> None:
    line = "83230,3,1,13,379,2017-11-06 14:32:21,,0"
    (first,), (second,) = (parse_line("talkingdata-click", line, f"td:{n}") for n in (1, 2))
    assert first.upstream_id != second.upstream_id


@pytest.mark.parametrize("line", ["1,2,3", "a,3,1,13,379,2017-11-06 14:32,,0", "1,3,1,13,379,06.11.2017,,0"])
def test_malformed_clicks(line: str) -> None:
    assert isinstance(parse_line("talkingdata-click", line, "td:1"), Reject)


def test_is_attributed_needs_its_time() -> None:
    assert isinstance(parse_line("talkingdata-click", "1,3,1,13,379,2017-11-06 14:32,,1", "td:1"), Reject)
    assert isinstance(parse_line("talkingdata-click", "1,3,1,13,379,2017-11-06 14:32,,2", "td:1"), Reject)


def test_the_header_is_no_event() -> None:
    header = "ip,app,device,os,channel,click_time,attributed_time,is_attributed"
    assert parse_line("talkingdata-click", header, "td:1") == []


@given(line=st.text(), name=st.sampled_from(sorted(FORMATS)))
def test_no_text_crashes_a_parser(line: str, name: str) -> None:
    parse_line(name, line, "f:1")


@given(column=st.integers(0, 23), value=st.text(st.characters(exclude_characters="\t\n"), max_size=20))
def test_no_column_crashes_the_parser(column: int, value: str) -> None:
    found = parse_line("ipinyou-click", changed(column, value), "f:1")
    if not isinstance(found, Reject):
        assert ORIGINAL_TIME not in found[0].attributes  # added by the door


def test_rebase_keeps_order_and_refuses_nonsense() -> None:
    rebase = Rebase.parse("1000,50000,10")
    assert [rebase.at(t) for t in (1000, 1004, 1010, 3000)] == [50_000, 50_000, 50_001, 50_200]
    for text in ("", "1,2", "1,2,0", "1,2,-1", "a,b,c", "1,2,nan", "1,2,inf"):
        with pytest.raises(ValueError, match=r".*"):
            Rebase.parse(text)
