"""What in a request could hold an id without being one by name: `ext` of any object, and queries of addresses.

Taken out for whom the user may not be known. `ext` has no form that anybody could check, so all of it goes, but for
what the specifications put there about the placement and the law.
Source: OpenRTB 2.6 §3.2.13-16 (page, ref), §3.2.16 Content (url); IAB "Global Placement ID" (imp.ext.gpid); GPC and
DSA transparency (regs.ext).
"""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

#: `ext` fields that say nothing of the user, by the object that they are of.
_KEPT = {"imp": ("gpid",), "regs": ("gpc", "dsa", "gdpr", "us_privacy", "gpp", "gpp_sid", "coppa")}
#: Addresses of where the ad runs.
_ADDRESSES = frozenset({"page", "ref", "url"})
_QUERY = re.compile(r"[?#;]")
#: What is nested deeper than any request of the specification is.
_DEEPEST = 24


def withheld(part: Any, of: str = "", depth: int = 0) -> Any:
    """A part of a request, a new one, without `ext` and without queries in addresses. `of`: its name.

    Example:
    >>> withheld({"id": "1", "ext": {"uid": "u", "gpid": "/1/top"}, "video": {"w": 1, "ext": {}}}, "imp")
    {'id': '1', 'ext': {'gpid': '/1/top'}, 'video': {'w': 1}}
    >>> withheld({"page": "https://p.example/a?email=e#top", "content": {"url": "https://p.example/?v=1"}}, "site")
    {'page': 'https://p.example/a', 'content': {'url': 'https://p.example/'}}
    """
    if isinstance(part, list):
        return [withheld(item, of, depth + 1) for item in part] if depth < _DEEPEST else []
    if not isinstance(part, dict):
        return part
    made: Json = {}
    for name, value in part.items() if depth < _DEEPEST else ():
        if name == "ext":
            kept = {n: value[n] for n in _KEPT.get(of, ()) if n in value} if isinstance(value, dict) else {}
            if kept:
                made[name] = kept
        elif name in _ADDRESSES and isinstance(value, str):
            made[name] = _QUERY.split(value, maxsplit=1)[0]
        else:
            made[name] = withheld(value, name, depth + 1)
    return made
