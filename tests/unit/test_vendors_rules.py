"""What the event handler decides without a connection: macros, pauses, lanes, progress, whose a URL is."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from connectors.addresses import is_public
from jobs.vendors import queue as queue_module
from jobs.vendors.device import Device, device_headers
from jobs.vendors.lane import PROBE_AFTER, Backoff, Call, Lane
from jobs.vendors.macros import NAMES, expand
from jobs.vendors.partners import BadUrl, PartnerBook, authority
from jobs.vendors.progress import MAX_METADATA_BYTES, Progress
from jobs.vendors.queue import CallQueue
from jobs.vendors.retry import backoff_s, retry_after_s
from jobs.vendors.wire import request_target
from schemas.catalog import Partner, Partners
from schemas.catalog_text import dump, load_partners
from schemas.errors import ConfigError

CALL: dict[str, Any] = {
    "idempotency_key": "Zt3Xx0yJ8m1uQyq0bM2r4A",
    "event_time_ms": 1_780_056_000_123,
    "record_id": "AAAAAAAAAAAAAAAAAAAAAA",
    "request_id": "req-1",
    "creative_id": "cr-1",
    "error_code": None,
    "consent": {},
}
TV = Device(ip="198.51.100.0", user_agent="TV/1 (a b)", referer="https://watch.example/")


@given(st.lists(st.sampled_from(sorted(NAMES)), max_size=12), st.text(max_size=40), st.booleans())
def test_expansion_leaves_no_macro_and_no_unsafe_character(names: list[str], user_agent: str, opted_out: bool) -> None:
    url = "https://p.test/?" + "&".join(f"{name}=[{name}]" for name in names)
    call = {**CALL, "consent": {"opt_out": "1"} if opted_out else {}}
    expanded = expand(url, call, Device(user_agent=user_agent))
    assert not re.search(r"[^A-Za-z0-9._~%&=?/:-]", expanded.removeprefix("https://"))
    assert expanded == expand(url, call, Device(user_agent=user_agent)), "made again it is the same"
    assert all(value for value in re.findall(r"=([^&]*)", expanded)), "unknown is -1, never empty"
    if opted_out and user_agent:
        assert "DEVICEUA=-2" in expanded or "DEVICEUA" not in names


@given(st.text(max_size=60))
def test_what_is_no_macro_stays(text: str) -> None:
    known = {found for found in re.findall(r"(?:\[|%5[Bb])([A-Z]+)(?:\]|%5[Dd])", text)} & NAMES
    if not known:
        assert expand(text, CALL, None) == text


def test_encoded_brackets_are_brackets_too() -> None:
    assert expand("https://p.test/?ua=%5BDEVICEUA%5D&d=[DOMAIN]", CALL, TV) == (
        "https://p.test/?ua=TV%2F1%20%28a%20b%29&d=watch.example"
    )


@given(st.text(max_size=200))
def test_no_header_can_be_smuggled_in(value: str) -> None:
    lines = device_headers(Device(ip=value, user_agent=value)).split("\r\n")
    assert all(line.startswith(("X-Device-IP: ", "X-Device-User-Agent: ")) for line in lines if line)
    assert len(lines) == (3 if value else 1)


@given(st.text(max_size=200))
def test_a_request_line_is_one_line_of_ascii(path: str) -> None:
    target = request_target(f"https://p.test/{path}")
    assert target.isascii() and target.isprintable() and " " not in target


@given(st.integers(1, 10_000), st.floats(0.01, 10), st.floats(10, 3_600), st.integers())
def test_pauses_grow_to_their_bound_and_keep_half(failures: int, first_s: float, most_s: float, seed: int) -> None:
    pause_s = backoff_s(failures, first_s, most_s, random.Random(seed))
    full_s = min(most_s, first_s * 2 ** min(failures - 1, 40))
    assert full_s / 2 <= pause_s <= full_s <= most_s


@given(st.binary(max_size=40))
def test_retry_after_is_bounded_whatever_it_says(header: bytes) -> None:
    wait_s = retry_after_s(header, 1_000_000.0, 60.0)
    assert wait_s is None or 0 <= wait_s <= 60


def lane(**limits: Any) -> Lane:
    row = Partner("p", ["p.test"], **{"max_per_s": 1_000, "max_in_flight": 4} | limits)
    return Lane(row, Backoff(1.0, 8.0), random.Random(1))


def filled(made: Lane, count: int) -> list[Call]:
    calls = [Call(offset, f"k{offset}", {}, b"", 0) for offset in range(count)]
    for call in calls:
        made.hold(call)
        made.put(call)
    return calls


def test_a_slot_is_free_only_when_its_call_is_over() -> None:
    made = lane()
    calls = filled(made, 6)
    assert [made.take(100.0) for _ in range(5)] == [*calls[:4], None]
    made.answered()
    assert made.take(100.0) is None, "answered, and not yet written down"
    made.over(calls[0])
    assert made.take(100.0) is calls[4]


def test_pacing_is_a_bucket_of_one_second() -> None:
    made = lane(max_per_s=2, max_in_flight=100)
    filled(made, 10)
    assert sum(made.take(100.0) is not None for _ in range(10)) == 2
    assert made.due_s(100.0) == pytest.approx(100.5)
    assert made.take(100.4) is None and made.take(100.5) is not None


def test_a_partner_that_is_down_is_probed_with_one_call_at_a_time() -> None:
    made, now_s = lane(), 100.0
    filled(made, 50)
    for _ in range(PROBE_AFTER):
        sent = [call for _ in range(4) if (call := made.take(now_s)) is not None]
        now_s += 0.1
        for call in sent:
            made.failed(call, now_s, None)
    assert made.probing
    assert made.take(now_s) is None, "first it rests"
    at_s = made.due_s(now_s)
    assert at_s is not None and 0.5 <= at_s - now_s <= 1.0
    probe = made.take(at_s)
    assert probe is not None and made.take(at_s) is None
    made.answered()
    made.over(probe)
    assert not made.probing
    assert sum(made.take(at_s + 20) is not None for _ in range(9)) == 4


def test_a_call_that_fails_for_itself_does_not_hold_up_the_rest() -> None:
    made, now_s, delivered = lane(max_in_flight=1), 100.0, 0
    poison = filled(made, 20)[0]
    while delivered < 19:
        due_s = made.due_s(now_s)
        assert due_s is not None and due_s < 200.0
        now_s = max(now_s, due_s)
        call = made.take(now_s)
        assert call is not None
        if call is poison:
            made.failed(call, now_s, None)
        else:
            made.answered()
            made.over(call)
            delivered += 1
    assert list(made.outstanding) == [poison.offset]


def test_what_a_partner_asks_for_holds_for_all_its_calls() -> None:
    made = lane()
    filled(made, 3)
    call = made.take(100.0)
    assert call is not None
    made.failed(call, 100.0, 30.0)
    assert made.due_s(100.0) == 130.0


@given(st.data())
def test_the_cursor_never_passes_a_call_that_is_not_over(data: st.DataObject) -> None:
    made, head = lane(max_in_flight=50), 0
    open_offsets: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        if data.draw(st.booleans()):
            if made.behind_from is None:
                if data.draw(st.booleans()):
                    made.hold(Call(head, "k", {}, b"", 0))
                else:
                    made.behind_from = head
                open_offsets.add(head)
            head += 1
        elif made.outstanding:
            offset = data.draw(st.sampled_from(sorted(made.outstanding)))
            made.over(made.outstanding[offset])
            open_offsets.discard(offset)
        assert made.cursor(head) == min(open_offsets, default=head)


@given(st.integers(0, 2**40), st.dictionaries(st.text(min_size=1, max_size=30), st.integers(0, 2**40), max_size=20))
def test_progress_is_read_as_it_was_written(head: int, behind: dict[str, int]) -> None:
    progress = Progress(head, {name: min(at, head) for name, at in behind.items()})
    assert Progress.read(progress.offset, progress.metadata) == progress
    assert Progress.read(progress.offset + 1, progress.metadata) == Progress(progress.offset + 1), "moved by hand"


def test_progress_says_when_it_is_too_much_for_the_broker() -> None:
    many = Progress(10**9, {f"partner-{i:04d}.example:8443": 10**9 - i for i in range(200)})
    assert not many.fits and len(many.metadata) > MAX_METADATA_BYTES
    assert Progress(10**9, dict(list(many.behind.items())[:90])).fits


@pytest.mark.parametrize(
    "metadata", ["", "x", "[]", '{"head": 1}', '{"head": "a", "behind": {}}', '{"head":1,"behind":[]}']
)
def test_progress_of_somebody_else_is_a_plain_offset(metadata: str) -> None:
    assert Progress.read(7, metadata) == Progress(7)


def test_the_longest_address_says_whose_a_url_is() -> None:
    book = PartnerBook(Partners(1, [Partner("net", ["Ads.example"]), Partner("viewability", ["ads.example/view/"])]))
    found = {
        "https://ADS.example/i": "net",
        "https://ads.example/view": "viewability",
        "https://ads.example/view/1?x=y": "viewability",
        "https://ads.example/viewer": "net",
        "https://ads.example:8443/i": "ads.example:8443",
        "http://other.example/i?cb=[CACHEBUSTING]": "other.example",
    }
    assert {url: book.of_url(url).id for url in found} == found


@pytest.mark.parametrize(
    "url",
    [
        "ftp://p.test/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//p.test/",
        "https://",
        "https://u:p@p.test/",
        "https://p.test:x/",
        "https://p.test:99999/",
        "https://[::1/",
        "https://p test/",
        "https://p.test\\@evil.test/",
        "https://p.test/" + "a" * 9_000,
    ],
)
def test_what_may_not_be_called(url: str) -> None:
    with pytest.raises(BadUrl):
        authority(url)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:c0a8:101::", "64:ff9b::7f00:1", "x"),
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("93.184.215.14") and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    assert is_public("64:ff9b::5db8:d70e")


def test_partners_file_is_checked_as_a_whole() -> None:
    rows = Partners(1, [Partner("p", ["p.test"], headers={"X-Key": "1"})])
    assert load_partners(dump(rows)) == rows
    with pytest.raises(ConfigError, match=r"max_per_s: expected int.*\$\.partners\[0\]\.headers\.X: expected str"):
        load_partners(
            '{"version": 1, "partners": [{"id": "p", "addresses": [], "headers": {"X": 1}, "max_per_s": ""}]}'
        )


def test_partitions_begin_where_they_were_although_the_broker_did_not_answer_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the client would read them on, and nobody would take what it gives."""
    monkeypatch.setattr(queue_module, "_RETRY_S", 0.0)
    committed = TopicPartition("t", 3, 7, metadata=Progress(9, {"slow": 7}).metadata)
    begun: list[Mapping[int, Progress]] = []

    answers: list[Any] = [_TIMED_OUT, [committed], [committed]]
    ends: list[Any] = [_TIMED_OUT, (0, 20)]

    class Reader:
        def committed(self, _partitions: object, timeout: float) -> Any:
            return _said(answers)

        def get_watermark_offsets(self, _place: object, timeout: float) -> Any:
            return _said(ends)

        def assign(self, places: list[TopicPartition]) -> None:
            assert [(p.partition, p.offset) for p in places] == [(3, 9)]

        def resume(self, places: list[TopicPartition]) -> None:
            assert [p.partition for p in places] == [3]

    queue = object.__new__(CallQueue)
    queue._held, queue._on_assigned = set(), begun.append
    queue._assigned(Reader(), [committed])  # type: ignore[arg-type]
    assert begun == [{3: Progress(9, {"slow": 7})}]


_TIMED_OUT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


def _said(answers: list[Any]) -> Any:
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer
