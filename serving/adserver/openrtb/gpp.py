"""GPP strings: the header that says which sections there are, and what a US section's user has opted out of.

Source: IAB Tech Lab Global Privacy Platform, Core (header, Fibonacci ranges), "Section Information" (ids up to 27) and
its US section specifications; the offsets below are those of the core segments' two-bit fields after the six-bit
version. Sections 24 to 27 are as the Tech Lab's own library writes them: the section header of their drafts is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from serving.adserver.openrtb.bits import LONGEST, Bits

TCF_EU, US_PRIVACY = 2, 6
_TYPE, _VERSION = 3, 1
_OPTED_OUT = 1
_GPC_SEGMENT = 1
_MOST_SECTIONS = 64


@dataclass(frozen=True, slots=True)
class _UsSection:
    """Where a section's core segment says no. Positions count two-bit fields after the version, from 0.

    `opt_outs`: sale, sharing, targeted advertising; 1 is an opt-out. `children`: known child consents; 1 is no consent,
    and any other value than 0 says that the user is a child. `fields`: how many there must be, but for those at the end
    that say who signed what. `has_gpc`: whether the segments after the core say which kind they are.
    """

    opt_outs: tuple[int, ...]
    children: range
    fields: int
    has_gpc: bool = True


def _state(sensitive: int, children: int) -> _UsSection:
    """The layout that states share: three notices, sale, targeted advertising, so many kinds of sensitive data, so many
    ages of children, additional data.
    """
    first = 5 + sensitive
    return _UsSection((3, 4), range(first, first + children), first + children + 1)


#: Since section 24 who signed what comes first, and a segment of sensitive data (no GPC) may follow the core.
_MSPA_FIRST = _UsSection((5, 6), range(7, 8), 9, has_gpc=False)
#: Section id -> layout of version 1. usnat's second version has other counts after the opt-outs.
_US_SECTIONS = {
    7: _UsSection((6, 7, 8), range(21, 23), 24),  # usnat
    8: _UsSection((3, 4), range(14, 16), 17),  # usca
    9: _UsSection((3, 4), range(13, 14), 14),  # usva
    10: _UsSection((3, 4), range(12, 13), 13),  # usco
    11: _UsSection((4, 5), range(14, 15), 15),  # usut
    12: _UsSection((3, 4), range(13, 16), 16),  # usct
    13: _state(8, 3),  # usfl
    14: _state(8, 3),  # usmt
    15: _state(11, 3),  # usor
    16: _state(8, 1),  # ustx
    17: _state(9, 5),  # usde
    18: _UsSection((4, 5), range(14, 15), 15),  # usia
    19: _state(8, 1),  # usne
    20: _state(8, 3),  # usnh
    21: _state(10, 5),  # usnj
    22: _state(8, 1),  # ustn
    23: _state(8, 1),  # usmn
    24: _UsSection((5, 6), range(0), 8),  # usmd: nothing of children
    25: _MSPA_FIRST,  # usin
    26: _MSPA_FIRST,  # usky
    27: _MSPA_FIRST,  # usri
}
_USNAT = 7
_USNAT_2 = _UsSection((6, 7, 8), range(25, 28), 29)


def sections(text: str) -> dict[int, str] | None:
    """Sections of a GPP string by their id; None for a string that can't be read, as one that is too long.

    Example:
    >>> sorted(sections("DBACNYA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN"))
    [2, 6]
    """
    return _sections(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=4096)
def _sections(text: str) -> dict[int, str] | None:
    header, *texts = text.split("~")
    try:
        bits = Bits(header)
        if bits.number(6) != _TYPE or bits.number(6) != _VERSION:
            return None
        ids = list(_fibonacci_ranges(bits))
    except ValueError:
        return None
    if len(ids) != len(texts):
        return None
    return dict(zip(ids, texts, strict=True))


def _fibonacci_ranges(bits: Bits) -> Iterable[int]:
    """Numbers in ascending order, each as the distance from the one before."""
    last = found = 0
    for _ in range(bits.number(12)):
        is_range = bits.flag()
        first = last + bits.fibonacci()
        last = first + bits.fibonacci() if is_range else first
        found += last - first + 1
        if found > _MOST_SECTIONS:
            raise ValueError("more sections than there are")
        yield from range(first, last + 1)


def is_us_section(section_id: int) -> bool:
    """Whether a section is one of those whose fields are known here."""
    return section_id in _US_SECTIONS


@lru_cache(maxsize=4096)
def opted_out_of_us(section_id: int, text: str) -> bool:
    """Whether a US section's user must stay unknown: opted out, a child, or GPC; also when it can't be read."""
    core, *others = text.split(".")
    try:
        bits = Bits(core)
        version = bits.number(6)
        section = _USNAT_2 if section_id == _USNAT and version == 2 else _US_SECTIONS.get(section_id)
        if section is None or (version != 1 and section is not _USNAT_2):
            return True
        values = [bits.number(2) for _ in range(section.fields)]
        if any(values[i] == _OPTED_OUT for i in section.opt_outs) or any(values[i] for i in section.children):
            return True
        return section.has_gpc and any(_gpc(Bits(other)) for other in others)
    except ValueError:
        return True


def _gpc(bits: Bits) -> bool:
    """Global Privacy Control, in a segment of its own."""
    return bits.number(2) == _GPC_SEGMENT and bits.flag()
