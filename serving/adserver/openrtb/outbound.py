"""What DSPs are asked: the request as it came, less what consent takes away, with our floors, deals and chain node.

The request's own JSON is changed, not our reading of it, so that fields that we do not know and `ext` reach the DSPs.
Bidders who may know the same, bid in the same currency and see the same seats and deals share one serialised body.
What 2.5 has under `ext` (regs, consent, eids, schain) is sent where 2.6 has it.

Source: OpenRTB 2.6 §3.2.1 (at, tmax, cur, wseat), §3.2.25-26 (supply chain), §3.2.18-20 (what identifies a user).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.catalog import Bidder
from schemas.money import to_micros
from serving.adserver.auction.deals import GUARANTEED, DealTerms
from serving.adserver.auction.rates import Rates
from serving.adserver.openrtb.consent import Permission
from serving.adserver.openrtb.context import Opportunity, RequestContext
from serving.adserver.openrtb.device import truncated
from serving.adserver.openrtb.messages import encode
from serving.adserver.openrtb.withheld import withheld

Json = dict[str, Any]

#: Of a device: what tells one from all others. `ext` goes as well, since nobody can say what is in it.
_DEVICE_IDS = ("ifa", "didsha1", "didmd5", "dpidsha1", "dpidmd5", "macsha1", "macmd5", "ext")
_EXACT_PLACE = ("accuracy", "lastfix", "zip", "ext")
_TOWN = ("lat", "lon", "type", "ipservice", "city", "metro")
_PLACE_DECIMALS = 2
_MICROS = 1_000_000
_TIMED = ("video", "audio")
_CHAIN_VERSION = "1.0"
#: Fields that 2.5 has in `ext` of an object, and 2.6 in the object itself.
_MOVED = {"regs": ("gdpr", "us_privacy", "gpp", "gpp_sid"), "user": ("consent", "eids"), "source": ("schain",)}
#: `ext` of a request that only our own doors write.
_OWN_EXT = "session"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Outbound:
    """Bodies of one request for its bidders. `exchange_domain` is our `asi` in the supply chain."""

    def __init__(
        self, context: RequestContext, asked: Sequence[Opportunity], rates: Rates, tmax_ms: int, exchange_domain: str
    ) -> None:
        request = context.request
        self._context = context
        self._asked = asked
        self._rates = rates
        self._data = _as_came(context)
        self._has_deals = any(o.deals for o in asked)
        self._bodies: dict[tuple[object, ...], bytes] = {}
        self._names_buyers = bool(request.wseat or request.bseat or self._has_deals)
        #: While it names no buyers, by all of a bidder that a body then depends on: vendor id and currency.
        self._alike: dict[tuple[int, str], bytes | None] = {}
        self._personal: dict[Permission, Json] = {}
        data = self._data
        _move_up(data)
        imps = {imp["id"]: imp for imp in data["imp"]}
        self._imps = [(o, imps[o.imp.id]) for o in asked]
        data["at"] = 1
        data["tmax"] = tmax_ms
        if data.get("allimps") and len(asked) < len(request.imp):
            data["allimps"] = 0  # they are not all, for them
        data["source"] = _with_our_node(data.get("source") or {}, context, asked, exchange_domain)

    def body(self, bidder: Bidder) -> bytes | None:
        """What to send to a bidder; None when it is not to be asked: none of its seats is wanted, its currency is not
        known, or every imp is for other buyers.
        """
        if self._names_buyers:
            return self._body(bidder)
        key = bidder.tcf_vendor_id, bidder.currency
        if key not in self._alike:
            self._alike[key] = self._body(bidder)
        return self._alike[key]

    def _body(self, bidder: Bidder) -> bytes | None:
        currency = bidder.currency
        seats = self._seats(bidder)
        if seats is None or currency not in self._rates:
            return None
        permission = self._context.signals.for_vendor(bidder.tcf_vendor_id)
        deals = self._deals(bidder) if self._has_deals else ()
        key = (permission, currency, seats, deals)
        if key not in self._bodies:
            self._bodies[key] = self._serialised(bidder, permission, seats, deals)
        return self._bodies[key] or None

    def must_ask(self, bidder: Bidder) -> bool:
        """Whether this bidder is asked whatever its tier: for a premium imp, or since a deal names it or one of its
        seats, rather than being open to anyone.
        """
        return any(place.premium for place in self._asked) or any(
            bidder.id in deal.bidders or not deal.seats.isdisjoint(bidder.seat_ids)
            for place in self._asked
            for deal in place.deals.values()
        )

    def _seats(self, bidder: Bidder) -> tuple[str, ...] | None:
        """`wseat` for a bidder; empty is any, None is none. Without a list of its seats, it may have them all."""
        request = self._context.request
        if request.wseat:
            wanted = tuple(s for s in request.wseat if not bidder.seat_ids or s in bidder.seat_ids)
            return wanted or None
        if request.bseat and bidder.seat_ids and all(s in request.bseat for s in bidder.seat_ids):
            return None
        return ()

    def _deals(self, bidder: Bidder) -> tuple[tuple[str, ...], ...]:
        """Ids of the deals that a bidder may be told of, per imp."""
        return tuple(
            tuple(d.id for d in o.deals.values() if d.open_to(bidder.id, bidder.seat_ids)) for o in self._asked
        )

    def _serialised(
        self, bidder: Bidder, permission: Permission, seats: tuple[str, ...], deals: tuple[tuple[str, ...], ...]
    ) -> bytes:
        """The body of a variant; empty when nothing in it could be bought."""
        data = self._known_to(permission)
        imps = [
            self._imp(o, imp if permission.ids else withheld(imp, "imp"), bidder, deals[i] if deals else ())
            for i, (o, imp) in enumerate(self._imps)
            if not o.private_auction or (deals and deals[i])
        ]
        if not imps:
            return b""
        data = data | {"imp": imps, "cur": [bidder.currency]}
        if seats:
            data["wseat"] = seats
        try:
            return _encode(data)
        except OverflowError:  # a field that nobody here knows holds a number of more than 64 bits
            return json.dumps(data, separators=(",", ":")).encode()

    def _imp(self, place: Opportunity, imp: Json, bidder: Bidder, deal_ids: tuple[str, ...]) -> Json:
        """An imp with our floor, only what may be shown in it, and the deals of a variant."""
        floor_micros = self._rates.from_ours(place.floor_cpm_micros or 0, bidder.currency) or 0
        made = imp | {"bidfloor": floor_micros / _MICROS, "bidfloorcur": bidder.currency}
        for name in ("video", "audio", "banner", "native"):
            if name in made and name not in place.formats:
                del made[name]
        if place.imp.bidfloorcur != bidder.currency:
            for name in _TIMED:
                if name in made:
                    made[name] = self._timed(made[name], place.imp.bidfloorcur, bidder.currency)
        if "native" in made and place.imp.native is not None:  # with ids for its assets
            made["native"] = made["native"] | {"request": place.imp.native.request}
        if not place.deals:
            return made
        pmp = dict(made.pop("pmp", None) or {})
        named = [d for d in pmp.get("deals") or () if d["id"] in deal_ids and not place.deals[d["id"]].ours]
        own = [self._deal(place.deals[i], bidder.currency) for i in deal_ids if place.deals[i].ours]
        if named or own:
            made["pmp"] = pmp | {"deals": named + own}
        return made

    def _timed(self, part: Json, said: str, currency: str) -> Json:
        """A Video or Audio whose floors, which are in the imp's currency, are in a bidder's."""
        made = part
        if part.get("mincpmpersec"):
            made = made | {"mincpmpersec": self._floor(part["mincpmpersec"], said, currency)}
        if part.get("durfloors"):
            floors = [d | {"bidfloor": self._floor(d.get("bidfloor") or 0, said, currency)} for d in part["durfloors"]]
            made = made | {"durfloors": floors}
        return made

    def _floor(self, amount: float, said: str, currency: str) -> float:
        ours = self._rates.floor_to_ours(to_micros(repr(amount)), said)
        return (self._rates.from_ours(ours or 0, currency) or 0) / _MICROS

    def _deal(self, terms: DealTerms, currency: str) -> Json:
        """A deal of ours as §3.2.12 has it."""
        floor_micros = self._rates.from_ours(terms.floor_cpm_micros or 0, currency) or 0
        made: Json = {"id": terms.id, "bidfloor": floor_micros / _MICROS, "bidfloorcur": currency}
        made["at"] = 3 if terms.fixed else 1
        if terms.type == GUARANTEED:
            made["guar"] = 1
        if terms.seats:
            made["wseat"] = sorted(terms.seats)
        if terms.domains:
            made["wadomain"] = sorted(terms.domains)
        return made

    def _known_to(self, permission: Permission) -> Json:
        """The request with what a bidder may know of its user."""
        known = self._personal.get(permission)
        if known is None:
            known = {n: v if permission.ids or n == "imp" else withheld(v, n) for n, v in self._data.items()}
            ext = known.get("ext")
            if isinstance(ext, dict):
                ext = {name: value for name, value in ext.items() if name != _OWN_EXT}
            if permission.ids and ext:
                known["ext"] = ext
            else:
                known.pop("ext", None)  # nobody can say what is in it
            if (device := _device(known.get("device"), permission)) is not None:
                known["device"] = device
            user = _user(self._data.get("user"), permission, self._context.pseudonym)
            known.pop("user", None)
            if user:
                known["user"] = user
            self._personal[permission] = known
        return known


def _as_came(context: RequestContext) -> Json:
    """The request's own JSON; ours, where only we could read it: what no field of ours is in was not looked at before.

    Shape: a new object, which the caller may change.
    """
    data: Json
    try:
        data = _decode(context.body or encode(context.request))
    except UnicodeDecodeError:
        data = _decode(context.body.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        data = _decode(encode(context.request))
    return data


def _device(device: Json | None, permission: Permission) -> Json | None:
    """A device without what this permission keeps back."""
    if device is None:
        return None
    made = dict(device)
    if not permission.ids:
        for name in _DEVICE_IDS:
            made.pop(name, None)
        for name in ("ip", "ipv6"):
            if address := truncated(made.pop(name, None) or ""):
                made[name] = address
    if not permission.place and isinstance(made.get("geo"), dict):
        made["geo"] = _coarse(made["geo"], permission.town)
    return made


def _user(user: Json | None, permission: Permission, pseudonym: str | None) -> Json:
    """A user without what this permission keeps back; our pseudonym is the exchange's id of them (§3.2.20)."""
    if user is None:
        return {}
    if not permission.ids:
        return {"consent": user["consent"]} if user.get("consent") else {}
    made = {name: value for name, value in user.items() if name != "id"}
    if isinstance(ext := made.get("ext"), dict):
        made["ext"] = {name: value for name, value in ext.items() if name != "opt_out"}
        if not made["ext"]:
            del made["ext"]
    if pseudonym:
        made["id"] = pseudonym
    if not permission.place and isinstance(made.get("geo"), dict):
        made["geo"] = _coarse(made["geo"], permission.town)
    return made


def _coarse(geo: Json, town: bool) -> Json:
    """A place to about a kilometre; without its town, to the region."""
    hidden = _EXACT_PLACE if town else _EXACT_PLACE + _TOWN
    made = {name: value for name, value in geo.items() if name not in hidden}
    for name in ("lat", "lon"):
        if isinstance(made.get(name), int | float):
            made[name] = round(made[name], _PLACE_DECIMALS)
    return made


def _move_up(data: Json) -> None:
    """Puts 2.5's extensions where 2.6 has them. What both places have stays as 2.6 says."""
    for name, moved in _MOVED.items():
        part = data.get(name)
        if not isinstance(part, dict) or not isinstance(part.get("ext"), dict):
            continue
        ext = part["ext"]
        for field in moved:
            if field in ext:
                value = ext.pop(field)
                part.setdefault(field, value)
        if not ext:
            del part["ext"]


def _with_our_node(source: Json, context: RequestContext, asked: Sequence[Opportunity], domain: str) -> Json:
    """The source with ourselves as the supply chain's last node. A chain that can't be read stays out, and the new one
    is not complete; with none before us we are its first seller, and it is.
    """
    chain = source.get("schain")
    seller = next((o.publisher_id for o in asked if o.publisher_id), "")
    if not seller:
        return source
    node = {"asi": domain, "sid": seller, "rid": context.request.id, "hp": 1}
    if chain is None:
        made: Json = {"complete": 1, "ver": _CHAIN_VERSION, "nodes": [node]}
    elif isinstance(chain, dict) and isinstance(nodes := chain.get("nodes"), list):
        made = {"complete": 0, "ver": _CHAIN_VERSION} | chain | {"nodes": [*nodes, node]}
    else:
        made = {"complete": 0, "ver": _CHAIN_VERSION, "nodes": [node]}
    return source | {"schain": made}
