"""What is remembered by strangers' texts is bounded in bytes, not in entries alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from connectors.networks import Networks
from serving.adserver.auction.bids import _is_domain
from serving.adserver.openrtb import gpp
from serving.adserver.openrtb.tcf import STORE, decode_tcf
from serving.adserver.traffic.user_agents import UserAgents, contradicts
from tests.samples.consent import bits_to_text

_LONG = 300_000
_networks = Networks.of_lines(["203.0.113.0/24"])
_agents = UserAgents()


@pytest.mark.parametrize(
    "read",
    [
        decode_tcf,
        lambda text: decode_tcf(f"CPXxRfAPXxRfA.{text}"),
        gpp.sections,
        _agents.is_bot,
        lambda text: contradicts(text, "ios", 4),
        lambda text: contradicts("Mozilla/5.0", text, 4),
        _is_domain,
        _networks.has,
    ],
    ids=["tcf", "tcf segments", "gpp", "bot", "user agent", "os", "domain", "address"],
)
def test_long_texts_are_not_remembered(read: Callable[[str], object]) -> None:
    read("warm")
    tracemalloc.start()
    try:
        for i in range(20):
            read(f"{i}{'a' * _LONG}")
        assert tracemalloc.get_traced_memory()[0] < _LONG
    finally:
        tracemalloc.stop()


def _number(value: int, width: int) -> str:
    return format(value, f"0{width}b")


def test_ranges_of_all_vendors_cost_what_their_text_does() -> None:
    everybody = "1" + _number(1, 16) + _number(65_535, 16)
    head = _number(2, 6) + _number(0, 132) + "00" + _number(0, 12) + "1" * 48 + _number(0, 13)
    vendors = _number(65_535, 16) + "1" + _number(1, 12) + everybody
    kinds = [(purpose, kind) for purpose in range(64) for kind in range(3)]
    restrictions = "".join(_number(p, 6) + _number(k, 2) + _number(1, 12) + everybody for p, k in kinds * 4)
    text = bits_to_text(head + vendors * 2 + _number(4 * len(kinds), 12) + restrictions)
    tracemalloc.start()
    try:
        consent = decode_tcf(text)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert consent is not None and 65_535 in consent.vendors and 65_536 not in consent.vendors
    assert not consent.allows(7, STORE, may_be_interest=False), "no vendor is allowed what all are restricted from"


def test_a_number_that_never_ends_is_no_number() -> None:
    text = bits_to_text(_number(3, 6) + _number(1, 6) + _number(1, 12) + "0" + "01" * 20_000)
    assert gpp.sections(f"{text}~a") is None
