"""Media files: how ours are delivered, and whether an imp takes them or those in another's VAST.

Source: OpenRTB 2.6 §3.2.7, §3.2.8 (delivery, minbitrate, maxbitrate); AdCOM 1.0 list "Delivery Methods"; VAST 4.2
§3.9.1 (MediaFile). Bitrates are in kbps.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from schemas.catalog import Creative
from serving.adserver.openrtb.impressions import Audio, Video

_STREAMED = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl", "application/dash+xml"})
_DEFAULT_MIMES = {"video": "video/mp4", "audio": "audio/mpeg"}
#: AdCOM's codes that a method of VAST is: what is loaded as a file may be played meanwhile or afterwards.
_CODES = {"streaming": frozenset({1}), "progressive": frozenset({2, 3})}
_MEDIA_FILE = re.compile(r"<(?:\w+:)?MediaFile\b([^>]*)>")
_ATTRIBUTE = re.compile(r"\b(delivery|bitrate|minBitrate|maxBitrate)\s*=\s*[\"'](\w*)[\"']")


def attributes(creative: Creative) -> str:
    """Of the MediaFile of a creative of ours."""
    mime = creative.mime or _DEFAULT_MIMES[creative.format]
    bitrate = f' bitrate="{creative.bitrate_kbps}"' if creative.bitrate_kbps else ""
    named = escape(mime, {'"': "&quot;"})
    size = f'width="{creative.width}" height="{creative.height}"'
    return f'delivery="{_delivery(creative)}" type="{named}"{bitrate} {size}'


def own_fits(creative: Creative, timed: Video | Audio) -> bool:
    """Whether an imp takes a creative's media type, delivery and bitrate, as far as the creative says them."""
    if creative.mime and creative.mime not in timed.mimes:
        return False
    bitrate = creative.bitrate_kbps or None
    return _delivered(timed, _delivery(creative)) and _within(timed, bitrate, bitrate)


def another_fits(markup: str, timed: Video | Audio) -> bool:
    """Whether one of a VAST's media files is delivered as an imp takes it, as far as they say; a wrapper has none."""
    if not (timed.delivery or timed.minbitrate or timed.maxbitrate):
        return True
    files = [dict(_ATTRIBUTE.findall(tag)) for tag in _MEDIA_FILE.findall(markup)]
    return not files or any(_file_fits(said, timed) for said in files)


def _file_fits(said: dict[str, str], timed: Video | Audio) -> bool:
    bitrate = _number(said.get("bitrate"))
    least, most = _number(said.get("minBitrate")), _number(said.get("maxBitrate"))
    return _delivered(timed, said.get("delivery", "")) and _within(timed, least or bitrate, most or bitrate)


def _delivery(creative: Creative) -> str:
    return "streaming" if creative.mime.lower() in _STREAMED else "progressive"


def _delivered(timed: Video | Audio, method: str) -> bool:
    return not timed.delivery or method not in _CODES or not _CODES[method].isdisjoint(timed.delivery)


def _within(timed: Video | Audio, least: int | None, most: int | None) -> bool:
    """Whether a file's bitrates, from `least` to `most` of an adaptive stream, have one that an imp takes."""
    if most and timed.minbitrate and most < timed.minbitrate:
        return False
    return not (least and timed.maxbitrate and least > timed.maxbitrate)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
