"""A Wrapper's trackers put into the ad that it wraps, as a player does that follows the chain.

Impressions, errors, viewability, tracking, clicks, icons, verifications and extensions of all documents count; of
companions, the InLine's own go before those of Wrappers.
Source: VAST 4.2 §2.3.4 (Wrapper), §3.19 (Wrapper elements); §3.16 (before 4.0 verifications are an Extension).
"""

from __future__ import annotations

import copy

from lxml import etree

from serving.adserver.markup.vast_parse import NotVast, child, descend
from serving.adserver.markup.vast_versions import Version, name_of, put, put_all

_CREATIVE = ("Creatives", "Creative")
_MOST_MOVED = 3_000
_count = etree.XPath("count(.//*)")


def merge(wrapper: etree._Element, inline: etree._Element, version: Version) -> None:
    """Puts the trackers of a Wrapper into an InLine of a version; the Wrapper stays as it is.

    Errors: NotVast when that would be more than any ad has, as each creative of one gets what all of the other have.
    """
    linears = list(descend(inline, *_CREATIVE, "Linear"))
    non_linears = list(descend(inline, *_CREATIVE, "NonLinearAds"))
    if _count(wrapper) * max(len(linears), len(non_linears), 1) > _MOST_MOVED:
        raise NotVast("302: more trackers than any ad has")
    for name in ("Impression", "Error"):
        put_all(inline, (_moved(element, inline) for element in descend(wrapper, name)), version)
    _join(wrapper, inline, version, "Extensions")
    if version.knows("InLine", "ViewableImpression"):
        _join(wrapper, inline, version, "ViewableImpression")
    _verifications(wrapper, inline, version)
    for outer in descend(wrapper, *_CREATIVE, "Linear"):
        for linear in linears:
            for name in ("TrackingEvents", "VideoClicks", "Icons"):
                if version.knows("Linear", name):
                    _join(outer, linear, version, name)
    for outer in descend(wrapper, *_CREATIVE, "NonLinearAds"):
        for inner in non_linears:
            _join(outer, inner, version, "TrackingEvents")
    creatives = child(inline, "Creatives")
    if creatives is not None and next(descend(inline, *_CREATIVE, "CompanionAds"), None) is None:
        for creative in descend(wrapper, *_CREATIVE):
            if child(creative, "CompanionAds") is not None:
                creatives.append(_moved(creative, inline))


def _join(source: etree._Element, target: etree._Element, version: Version, name: str) -> None:
    """Adds the children of one's element of a name to the other's; ClickThrough stays the InLine's."""
    outer = child(source, name)
    if outer is None or not len(outer):
        return
    inner = child(target, name)
    if inner is None:
        inner = etree.Element(_tag(name, target))
        put(target, inner, version)
    moved = [_moved(element, inner) for element in outer if name_of(element) != "ClickThrough"]
    if name == "VideoClicks":
        put_all(inner, moved, version)
    else:
        inner.extend(moved)


def _verifications(wrapper: etree._Element, inline: etree._Element, version: Version) -> None:
    outer = child(wrapper, "AdVerifications")
    if outer is None or not len(outer):
        return
    if version.knows("InLine", "AdVerifications"):
        _join(wrapper, inline, version, "AdVerifications")
        return
    extensions = child(inline, "Extensions")
    if extensions is None:
        extensions = etree.Element(_tag("Extensions", inline))
        put(inline, extensions, version)
    extension = etree.SubElement(extensions, _tag("Extension", inline), type="AdVerifications")
    extension.append(_moved(outer, inline))


def _moved(element: etree._Element, into: etree._Element) -> etree._Element:
    """A copy whose elements of VAST have the namespace of another document."""
    made = copy.deepcopy(element)
    made.tail = None
    of = etree.QName(element).namespace
    for part in made.iter(etree.Element):
        if etree.QName(part).namespace == of:
            part.tag = _tag(name_of(part), into)
    etree.cleanup_namespaces(made)
    return made


def _tag(name: str, beside: etree._Element) -> str:
    namespace = etree.QName(beside).namespace
    return f"{{{namespace}}}{name}" if namespace else name
