"""Other people's VAST, read as the hostile input that it is: no entities, no DTD, no network, limits on size and depth.

libxml2 itself refuses trees deeper than 256 and names longer than 50,000 characters (`huge_tree=False`).
Source: OWASP "XML External Entity Prevention"; VAST 4.2 §3.1 to §3.4 (VAST, Ad, InLine, Wrapper).
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

from lxml import etree

from serving.adserver.markup.vast_versions import name_of

_HOSTILE = etree.XMLParser(
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
    strip_cdata=False,
)
#: Elements of a document, and creatives of an ad: whoever shows an ad adds to each of them.
_MOST_ELEMENTS, MOST_CREATIVES = 5_000, 32
_count = etree.XPath("count(//*)")
_OWN = etree.XMLParser(strip_cdata=False)


class NotVast(Exception):
    """A document that can't be shown; the message says why, with VAST's own error code where there is one."""


def parsed(text: bytes, limit_bytes: int) -> etree._Element:
    """The root of a VAST document. Errors: NotVast."""
    if len(text) > limit_bytes:
        raise NotVast(f"longer than {limit_bytes} bytes")
    try:
        root = etree.fromstring(text, _HOSTILE)
    except (etree.XMLSyntaxError, ValueError, LookupError) as e:
        raise NotVast(f"100: not XML: {e}") from e
    if _count(root) > _MOST_ELEMENTS:
        raise NotVast(f"more than {_MOST_ELEMENTS} elements")
    if root.getroottree().docinfo.doctype:
        raise NotVast("100: a document type is not allowed")
    if name_of(root) != "VAST":
        raise NotVast("101: its root is not VAST")
    return root


def ads_of(root: etree._Element) -> list[tuple[etree._Element, etree._Element]]:
    """(Ad, its InLine or Wrapper) of a document, in order; an Ad that has neither is not among them."""
    found = []
    for ad in root.iterchildren(etree.Element):
        body = next((c for c in ad if name_of(c) in ("InLine", "Wrapper")), None) if name_of(ad) == "Ad" else None
        if body is not None:
            found.append((ad, body))
    return found


def child(parent: etree._Element, name: str) -> etree._Element | None:
    return next((c for c in parent if name_of(c) == name), None)


def descend(parent: etree._Element, *path: str) -> Iterator[etree._Element]:
    """All elements at a path of names below an element."""
    if not path:
        yield parent
        return
    for c in parent:
        if name_of(c) == path[0]:
            yield from descend(c, *path[1:])


def text_of(element: etree._Element | None) -> str:
    """Its own text without surrounding blanks; empty for none."""
    return (element.text or "").strip() if element is not None else ""


def seconds(text: str) -> float | None:
    """`HH:MM:SS[.mmm]`; None for what is no such time.

    Example:
    >>> seconds("00:01:30.500"), seconds("1:00")
    (90.5, None)
    """
    hours, _, rest = text.strip().partition(":")
    minutes, _, secs = rest.partition(":")
    whole, _, part = secs.partition(".")
    digits = (hours, minutes, whole, part or "0")
    if not all(d.isascii() and d.isdigit() and len(d) <= 6 for d in digits):
        return None
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(digits[3]) / 10 ** len(digits[3])


def elements(parent: etree._Element, xml: str) -> list[etree._Element]:
    """Elements of a fragment of ours, in the parent's namespace, so that readers find them beside the others."""
    namespace = etree.QName(parent).namespace
    declared = f" xmlns={quoteattr(namespace)}" if namespace else ""
    return list(etree.fromstring(f"<x{declared}>{xml}</x>", _OWN))
