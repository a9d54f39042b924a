"""Logs that carry our tokens: a display logger's access log, an SSAI server's beacons; and lines that are neither."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Reject, RejectReason
from schemas.events import SOURCES
from schemas.upstream import UpstreamEvent
from schemas.upstream_formats import parse_line

TOKEN = "A" * 76
NOON_MS = 1_780_056_000_000  # 2026-05-29T12:00:00Z


def access(target: str = f"/t/{TOKEN}", time: str = "29/May/2026:14:00:00 +0200", **parts: str) -> str:
    """A line of an access log."""
    method, status = parts.get("method", "GET"), parts.get("status", "204")
    rest = parts.get("rest", ' "https://news.example/a" "Mozilla/5.0 (\\"quoted\\")"')
    return f'203.0.113.9 - someone [{time}] "{method} {target} HTTP/1.1" {status} 43{rest}'


def events_of(source_format: str, line: str) -> list[UpstreamEvent]:
    found = parse_line(source_format, line, "f:1")
    assert not isinstance(found, Reject), found
    return found


def test_a_pixel_of_an_access_log() -> None:
    (event,) = events_of("display-logger", access())
    assert (event.token, event.source, event.original_time_ms) == (TOKEN, "display_logger", NOON_MS)
    assert (event.user, event.ip, event.attributes, event.event_type) == (None, None, {}, None)
    assert event.source in SOURCES


def test_the_clients_own_time_is_better_than_whole_seconds() -> None:
    (event,) = events_of("display-logger", access(f"/t/{TOKEN}?ts={NOON_MS + 7}&event=click&slot=top%20left&src=ssai"))
    assert (event.original_time_ms, event.event_type, event.attributes) == (NOON_MS + 7, "click", {"slot": "top left"})
    (event,) = events_of("display-logger", access(f"/t/{TOKEN}?ts=[TIMESTAMP]"))
    assert (event.original_time_ms, event.attributes) == (NOON_MS, {"ts": "[TIMESTAMP]"})


@pytest.mark.parametrize(
    "line",
    [
        access("/favicon.ico"),
        access("/status?x=/t/"),
        access(status="404"),
        access(status="500"),
        access(method="HEAD"),
        access(method="OPTIONS"),
    ],
)
def test_what_is_no_pixel_is_no_event(line: str) -> None:
    assert events_of("display-logger", line) == []


def test_common_log_format_will_do() -> None:
    assert len(events_of("display-logger", access(rest=""))) == 1
    assert len(events_of("display-logger", access(method="POST", status="200"))) == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not in Combined Log Format"),
        ("GET /t/x", "not in Combined Log Format"),
        (access().replace('"GET', "GET"), "not in Combined Log Format"),
        (access(status="20"), "not in Combined Log Format"),
        (access(status="abc"), "not in Combined Log Format"),
        (access(rest=' "cut off'), "not in Combined Log Format"),
        (access(rest=' "a" "b" "c"'), "not in Combined Log Format"),
        (access(time="29/May/2026:14:00:00"), "time"),
        (access(time="29/Mai/2026:14:00:00 +0200"), "time"),
        (access(time="2026-05-29T14:00:00Z"), "time"),
        (access(time="31/Jun/2026:14:00:00 +0200"), "day is out of range"),
        (access(time="29/May/2026:25:00:00 +0200"), "hour must be"),
        (access(time="29/May/2026:14:00:00 +9900"), "time"),
        (access(time="\u0662\u0669/May/2026:14:00:00 +0200x"), "time"),
        (access("/t/"), "token: expected 1 to 512"),
        (access(f"/t/{'A' * 513}"), "token: expected 1 to 512"),
        (access("http://[::1/t/x"), "Invalid IPv6 URL"),
        (access("/t/x?" + "&".join(f"a{n}=1" for n in range(65))), "Max number of fields"),
    ],
)
def test_malformed_lines_of_an_access_log(line: str, why: str) -> None:
    found = parse_line("display-logger", line, "f:1")
    assert isinstance(found, Reject), found
    assert found.reason is RejectReason.MALFORMED_LINE
    assert why in found.detail


def stitched(**changes: Any) -> str:
    """A line of an SSAI server's log."""
    line: dict[str, Any] = {
        "time_ms": NOON_MS,
        "beacons": [
            {"token": TOKEN, "event": "impression"},
            {"token": "B" * 76, "event": "start", "offset_ms": 40},
            {"token": "C" * 76, "event": "firstQuartile", "offset_ms": 7_500, "segment": 3},
        ],
        "pod": "p-7",
        "live": True,
        "nested": {"not": "kept"},
    }
    return json.dumps({name: value for name, value in (line | changes).items() if value is not None})


def test_many_beacons_of_one_request() -> None:
    first, second, third = events_of("ssai", stitched())
    assert [e.original_time_ms - NOON_MS for e in (first, second, third)] == [0, 40, 7_500]
    assert (second.token, second.event_type, second.source) == ("B" * 76, "start", "ssai")
    assert first.attributes == {"pod": "p-7", "live": "true"}
    assert third.attributes == {"pod": "p-7", "live": "true", "segment": "3"}
    assert events_of("ssai", stitched(beacons=[])) == [], "a request in the middle of a segment"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "Expecting value"),
        ("{", "line 1 column 2"),
        ('{"time_ms": 1, "beacons": []} x', "Extra data"),
        ("[]", "not an object"),
        ("NaN", "NaN is no JSON"),
        ("[" * 100_000, "recursion"),
        (stitched(time_ms=None), "time_ms"),
        (stitched(time_ms="1780056000000"), "time_ms"),
        (stitched(time_ms=1.5), "time_ms"),
        (stitched(time_ms=True), "time_ms"),
        (stitched(time_ms=-1), "time_ms"),
        (stitched(time_ms=2**63), "time_ms"),
        (stitched(beacons=None), "beacons: expected a list"),
        (stitched(beacons={}), "beacons: expected a list"),
        (stitched(beacons=[{"token": "x"}] * 501), "at most 500"),
        (stitched(beacons=[{"token": "x"}, "y"]), "beacons[1]: not an object"),
        (stitched(beacons=[{"event": "start"}]), "beacons[0].token: expected a text"),
        (stitched(beacons=[{"token": 5}]), "beacons[0].token: expected a text"),
        (stitched(beacons=[{"token": ""}]), "beacons[0].token: expected 1 to 512"),
        (stitched(beacons=[{"token": "x" * 513}]), "beacons[0].token: expected 1 to 512"),
        (stitched(beacons=[{"token": "x", "event": 3}]), "beacons[0].event: expected a text"),
        (stitched(beacons=[{"token": "x", "offset_ms": "3"}]), "beacons[0].offset_ms"),
        (stitched(beacons=[{"token": "x", "offset_ms": 10**9}]), "beacons[0].offset_ms"),
        (stitched(beacons=[{"token": "\ud800"}]), "surrogates"),
        (stitched(pod="\ud800"), "surrogates"),
    ],
)
def test_a_malformed_line_of_beacons_is_refused_whole(line: str, why: str) -> None:
    found = parse_line("ssai", line, "f:1")
    assert isinstance(found, Reject), found
    assert found.reason is RejectReason.MALFORMED_LINE
    assert why in found.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(line=st.fixed_dictionaries({}, optional={"time_ms": JSON, "beacons": JSON | st.lists(JSON), "x": JSON}))
def test_no_json_crashes_the_parser(line: dict[str, Any]) -> None:
    parse_line("ssai", json.dumps(line), "f:1")


@given(at=st.integers(0, 200), put=st.text(max_size=3), cut=st.integers(0, 5))
def test_no_damage_crashes_the_parser(at: int, put: str, cut: int) -> None:
    line = access()
    parse_line("display-logger", line[:at] + put + line[at + cut :], "f:1")
