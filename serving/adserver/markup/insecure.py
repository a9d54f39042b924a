"""Whether a DSP's markup loads something over plain HTTP by itself, which a secure page may not (§3.2.4 `secure`).

Where a click leads to is no such thing, nor is a namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_PLAIN = "http://"
# Patterns on strangers' text never go back (`*+`, and no `<` within a tag), so that they are linear in its length.
_HTML = re.compile(
    r"(?:\b(?:src|srcset|data|poster|background)\s*+=\s*+[\"']?+\s*+|url\(\s*+[\"']?+\s*+)http://", re.IGNORECASE
)
_VAST = re.compile(
    r"<(?!(?:\w++:)?(?:Custom|Companion|NonLinear|Icon)?Click(?:Through|ThroughURLTemplate)\b)[\w:]++"
    r"(?:\s(?:\"[^\"]*+\"|'[^']*+'|[^<>\"'])*+)?+>\s*+(?:<!\[CDATA\[)?+\s*+http://",
    re.IGNORECASE,
)
#: Fields of a native answer that a click leads to, or that are read.
_NOT_LOADED = frozenset({"link", "privacy", "text", "value", "ext"})

_decode = msgspec.json.Decoder().decode


def loads_insecurely(markup: str, ad_format: str) -> bool:
    """An address instead of markup is loaded, too.

    Example:
    >>> loads_insecurely('<a href="http://a.example"><img src="https://a.example"></a>', "banner")
    False
    """
    if _PLAIN not in markup:
        return False
    if markup.lstrip().startswith(_PLAIN):
        return True
    if ad_format in ("video", "audio"):
        return _VAST.search(markup) is not None
    if ad_format == "native":
        return any(_text_loads(text) for text in _loaded(markup))
    return _HTML.search(markup) is not None


def _text_loads(text: str) -> bool:
    if _PLAIN not in text:
        return False
    return text.startswith(_PLAIN) or (_VAST if "<VAST" in text else _HTML).search(text) is not None


def _loaded(markup: str) -> Iterator[str]:
    """Texts of a native answer that whoever shows it loads; none of what is no JSON, which can't be shown at all."""
    try:
        left: list[Any] = [_decode(markup)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(inner for name, inner in value.items() if name not in _NOT_LOADED)
