"""Whose a tracker is: a row of the partners file, or else a partner of its own for each address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from schemas.catalog import Partner, Partners

#: Topics' keys, metrics' labels and Valkey's keys are made of it.
_AUTHORITY = re.compile(r"[a-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9a-f:.]{2,45}\](:\d{1,5})?")
_MAX_URL = 8_192


class BadUrl(ValueError):
    """Not a URL that may be called; the message says why, and has no part of the URL."""


def authority(url: str) -> str:
    """Host and port of an http(s) URL, in lower case. Errors: BadUrl.

    Example:
    >>> authority("https://Verifier.example/i?cb=[CACHEBUSTING]")
    'verifier.example'
    """
    if len(url) > _MAX_URL:
        raise BadUrl(f"longer than {_MAX_URL} characters")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no port
    except ValueError as e:
        raise BadUrl("not a URL") from e
    if parts.scheme not in ("http", "https"):
        raise BadUrl("neither http nor https")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("has a user name")
    found = parts.netloc.lower()
    if not _AUTHORITY.fullmatch(found):
        raise BadUrl("no host name")
    return found


class PartnerBook:
    """Finds the partner of a URL, and a partner by its id."""

    def __init__(self, partners: Partners) -> None:
        rows = [(address.lower().rstrip("/"), p) for p in partners.partners for address in p.addresses]
        self._prefixes = sorted(rows, key=lambda row: -len(row[0]))  # the longest prefix is the closest
        self._by_id: Mapping[str, Partner] = {p.id: p for p in partners.partners}

    def of_url(self, url: str) -> Partner:
        """Whose URL it is. Errors: BadUrl."""
        found = authority(url)
        path = urlsplit(url).path
        for prefix, partner in self._prefixes:
            host, _, under = prefix.partition("/")
            if host == found and (not under or (path + "/").startswith(f"/{under}/")):
                return partner
        return self.by_id(found)

    def by_id(self, partner_id: str) -> Partner:
        """The row of an id; one with the ordinary limits for an id that the file does not know."""
        return self._by_id.get(partner_id) or Partner(partner_id, [partner_id])
