"""Substitution macros of the auction in markup and notice URLs.

Source: OpenRTB 2.6 §4.4: `${AUCTION_...}`, with `:B64` for the value in Base64; a value that is not known is empty.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

from schemas.decisions import Outcome
from schemas.money import to_decimal
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate
from serving.adserver.openrtb.context import Opportunity

_MACRO = re.compile(r"\$\{AUCTION_([A-Z0-9_]+)(:B64)?\}")
_DECIDED_BY_PRICE = (Outcome.WON, Outcome.LOST_TO_HIGHER_BID, Outcome.BELOW_FLOOR)
#: Values that are longer, written into a URL, count as not known: ids are the DSP's own, and so is how often its markup
#: asks for them.
_LONGEST_VALUE = 512
#: Characters of a value that stay as they are in markup; all others would end an attribute, an element or a URL.
_SAFE = "!$()*,./:;=?@_~-"


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Text with its macros replaced; those that are not known vanish.

    Example:
    >>> substitute("https://dsp.example/w?p=${AUCTION_PRICE}&i=${AUCTION_ID:B64}&x=${AUCTION_X}", {"PRICE": "1.5"})
    'https://dsp.example/w?p=1.5&i=&x='
    """
    if "${AUCTION_" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        plain = values.get(found.group(1), "")
        if len(plain) > _LONGEST_VALUE:
            return ""
        written = quote(b64encode(plain.encode()).decode() if found.group(2) else plain, safe=_SAFE)
        return written if len(written) <= _LONGEST_VALUE else ""

    return _MACRO.sub(value, text)


def values_of(
    candidate: Candidate, place: Opportunity, request_id: str, rates: Rates, loss: Outcome, least_cpm_micros: int | None
) -> dict[str, str]:
    """Values of a bid's macros. `loss` is 0 for the winner; `least_cpm_micros` would have been enough to win.

    A loser is told why but not what was paid, and what would have been enough only if its price is why (§4.4.1).
    """
    bid = candidate.bid
    if bid is None:
        return {}
    imp = place.imp
    values = {
        "ID": request_id,
        "BID_ID": candidate.response_bidid,
        "IMP_ID": imp.id,
        "SEAT_ID": candidate.seat_id or "",
        "AD_ID": bid.adid,
        "CURRENCY": candidate.bid_currency,
        "LOSS": str(int(loss)),
        "MULTIPLIER": f"{place.quantity:.12g}",
        "IMP_TS": f"{imp.dt:.0f}" if imp.dt else "",
    }
    if least_cpm_micros is not None and loss in _DECIDED_BY_PRICE:
        values["MIN_TO_WIN"] = _in_bids_currency(least_cpm_micros, candidate, rates)
    if loss is Outcome.WON and bid.price is not None:
        paid = _in_bids_currency(candidate.price_cpm_micros, candidate, rates)
        values["PRICE"] = paid
        values["MBR"] = f"{min(float(paid or 0) / bid.price, 1.0):.4g}" if bid.price else "1"
    return values


def _in_bids_currency(micros: int, candidate: Candidate, rates: Rates) -> str:
    converted = rates.from_ours(micros, candidate.bid_currency)
    return "" if converted is None else to_decimal(converted)
