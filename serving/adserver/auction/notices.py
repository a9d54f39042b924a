"""Which URLs tell DSPs how an auction ended: win notices, and loss notices with the specification's reason.

A win notice is called when the auction is won, a billing notice once per counted impression (it is one of the ad's
trackers in the registry record), a loss notice when the auction is lost.
Source: OpenRTB 2.6 §4.2.3 (nurl, burl, lurl), §4.4 (macros), "Loss Reason Codes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schemas.decisions import Outcome
from serving.adserver.auction.macros import substitute, values_of
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate, least_to_win
from serving.adserver.decision import Decision

_LONGEST_URL = 4_096


def macro_values(decision: Decision, candidate: Candidate, request_id: str, rates: Rates) -> dict[str, str]:
    """Values of a candidate's macros if it won."""
    if candidate.bid is None:
        return {}
    place = decision.opportunity
    least = least_to_win(decision.candidates, candidate, place.floor_cpm_micros)
    return values_of(candidate, place, request_id, rates, Outcome.WON, least)


def billing_url(candidate: Candidate, macros: Mapping[str, str]) -> str:
    """The address to be told of a DSP's counted impression; empty for none."""
    return _address(candidate.bid.burl, macros) if candidate.bid is not None else ""


def notices(decision: Decision, request_id: str, rates: Rates, is_shown: bool = True) -> Iterator[tuple[str, str]]:
    """(bidder id, URL) of an imp's win and loss notices; without the win when nobody got the answer in time."""
    winner, place = decision.winner, decision.opportunity
    least = winner.price_cpm_micros if winner is not None and winner.pricing != "house" else place.floor_cpm_micros
    for candidate in decision.candidates:
        bid = candidate.bid
        if bid is None:
            continue
        if candidate is winner:
            if is_shown and bid.nurl and bid.adm:  # without markup of its own, whoever shows the ad loads it from there
                url = _address(bid.nurl, macro_values(decision, candidate, request_id, rates))
            else:
                url = ""
        elif bid.lurl:
            reason = candidate.outcome
            url = _address(bid.lurl, values_of(candidate, place, request_id, rates, reason, least))
        else:
            continue
        if url:
            yield candidate.bidder_id or "", url


def _address(url: str, values: Mapping[str, str]) -> str:
    """A notice's URL with its macros replaced; empty for what is none."""
    if not url.startswith(("http://", "https://")):
        return ""
    made = substitute(url, values)
    return made if len(made) <= _LONGEST_URL and made.isascii() and not any(c.isspace() for c in made) else ""
