"""TCF v2 consent strings: what a user in the EEA allows, and to whom.

Source: IAB Europe "Transparency and Consent String with Global Vendor & CMP List Formats", v2.2: core string,
publisher restrictions; TCF Policies, Appendix A (purposes).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache

from serving.adserver.openrtb.bits import LONGEST, Bits, Spans

_VERSION = 2

STORE, BASIC_ADS, PROFILE, PERSONALISED_ADS, MEASURE = 1, 2, 3, 4, 7
_PRECISE_LOCATION = 1  # special feature

#: Purposes without which a vendor may not know who the user is. Profiles and personalised ads (3, 4) and storage (1)
#: need consent; choosing and measuring ads (2, 7) may rest on legitimate interest.
_TO_IDENTIFY = ((STORE, False), (BASIC_ADS, True), (PROFILE, False), (PERSONALISED_ADS, False), (MEASURE, True))

_NOT_ALLOWED, _ONLY_CONSENT, _ONLY_INTEREST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TcfConsent:
    """A decoded core string. Purposes, special features and vendors are numbers of the Global Vendor List."""

    purposes: Container[int]
    interests: Container[int]
    special_features: Container[int]
    vendors: Container[int]
    interest_vendors: Container[int]
    restrictions: dict[tuple[int, int], Spans]  # (purpose, restriction type) -> vendors

    def allows(self, vendor_id: int, purpose: int, may_be_interest: bool) -> bool:
        """Whether a vendor has a legal basis for a purpose. Vendor 0 is nobody: it has none."""
        if vendor_id <= 0 or vendor_id in self.restrictions.get((purpose, _NOT_ALLOWED), ()):
            return False
        consented = purpose in self.purposes and vendor_id in self.vendors
        interested = may_be_interest and purpose in self.interests and vendor_id in self.interest_vendors
        if vendor_id in self.restrictions.get((purpose, _ONLY_CONSENT), ()):
            return consented
        if vendor_id in self.restrictions.get((purpose, _ONLY_INTEREST), ()):
            return interested
        return consented or interested

    def identifies(self, vendor_id: int) -> bool:
        """Whether a vendor may know who the user is."""
        return all(self.allows(vendor_id, purpose, interest) for purpose, interest in _TO_IDENTIFY)

    def locates(self, vendor_id: int) -> bool:
        """Whether a vendor may know where exactly the user is: special feature 1, which is opted in to."""
        return _PRECISE_LOCATION in self.special_features and self.identifies(vendor_id)


def decode_tcf(text: str) -> TcfConsent | None:
    """The consent of a TC string; None for one that can't be read, which counts as none given.

    What it costs, and what is remembered of it, is bounded by the length of its core: a range of vendors is two
    numbers, however many there are in it.
    """
    core = text.partition(".")[0]
    return _decoded(core) if len(core) <= LONGEST else None


@lru_cache(maxsize=4096)
def _decoded(core: str) -> TcfConsent | None:
    try:
        bits = Bits(core)
        if bits.number(6) != _VERSION:
            return None
        bits.number(36 + 36)  # created, last updated
        bits.number(12 + 12 + 6)  # CMP, its version, consent screen
        bits.number(12 + 12 + 6)  # language, vendor list version, policy version
        bits.number(1 + 1)  # service specific, non-standard texts
        special_features = bits.flags(12)
        purposes, interests = bits.flags(24), bits.flags(24)
        bits.number(1 + 12)  # purpose one treatment, publisher's country
        vendors, interest_vendors = _vendors(bits), _vendors(bits)
        return TcfConsent(purposes, interests, special_features, vendors, interest_vendors, _restrictions(bits))
    except ValueError:
        return None


def _vendors(bits: Bits) -> Container[int]:
    """Vendors as a bit field or as ranges."""
    highest = bits.number(16)
    if not bits.flag():
        return bits.flags(highest)
    return Spans(_ranges(bits))


def _ranges(bits: Bits) -> list[tuple[int, int]]:
    found = []
    for _ in range(bits.number(12)):
        is_range = bits.flag()
        first = bits.number(16)
        last = bits.number(16) if is_range else first
        if last < first:
            raise ValueError("a range of vendors that there is not")
        found.append((first, last))
    return found


def _restrictions(bits: Bits) -> dict[tuple[int, int], Spans]:
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for _ in range(bits.number(12)):
        purpose, kind = bits.number(6), bits.number(2)
        found.setdefault((purpose, kind), []).extend(_ranges(bits))
    return {of: Spans(ranges) for of, ranges in found.items()}
