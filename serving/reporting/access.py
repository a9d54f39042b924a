"""Who asks, and what they may see: an advertiser's key its own campaigns, the admin key all of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from connectors.api_keys import ADMIN, KeyChecker, ensure_keys
from schemas.catalog import Campaign, Catalog
from schemas.catalog_text import load_catalog
from schemas.errors import ConfigError
from serving.reporting.answer import names_of
from serving.reporting.query import Filter, ReportQuery


class Forbidden(Exception):
    """The key is good, but not for this. Says the same of what others own and of what does not exist."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to; `advertiser_id` is None for the admin."""

    advertiser_id: str | None

    def may_see(self, advertiser_id: str) -> bool:
        return self.advertiser_id is None or self.advertiser_id == advertiser_id


class Directory:
    """The catalogue and the keys, both renewed when the catalogue's file changes. May be shared by threads.

    Every advertiser of the catalogue gets a key, new ones too.
    """

    def __init__(self, catalog_path: Path, keys_path: Path) -> None:
        self._catalog_path = catalog_path
        self._keys_path = keys_path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._reload_if_changed()

    def _reload_if_changed(self) -> None:
        """Errors: ConfigError when the catalogue is missing or wrong; what was loaded before stays."""
        try:
            stat = self._catalog_path.stat()
        except FileNotFoundError:
            raise ConfigError(f"no catalogue at {self._catalog_path}") from None
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp:
            return
        with self._lock:
            catalog = load_catalog(self._catalog_path.read_text())
            keys = ensure_keys(self._keys_path, [ADMIN, *(advertiser.id for advertiser in catalog.advertisers)])
            self._catalog = catalog
            self._names = names_of(catalog)
            self._owners = {campaign.id: campaign.advertiser_id for campaign in catalog.campaigns}
            self._checker = KeyChecker(keys)
            self._stamp = stamp

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None for a wrong one. Errors: ConfigError."""
        self._reload_if_changed()
        principal = self._checker.principal_of(key)
        if principal is None:
            return None
        return Caller(None if principal == ADMIN else principal)

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def names(self) -> dict[str, dict[str, str]]:
        """Names by dimension and id."""
        return self._names

    def campaigns(self, caller: Caller) -> list[Campaign]:
        """The campaigns that the caller may see."""
        return [campaign for campaign in self._catalog.campaigns if caller.may_see(campaign.advertiser_id)]

    def narrowed(self, query: ReportQuery, caller: Caller) -> ReportQuery:
        """The report over what the caller may see. Errors: Forbidden when it asks for others' campaigns by name."""
        if caller.advertiser_id is None:
            return query
        for condition in query.filters:
            for value in condition.values:
                owner = {"campaign": self._owners.get(value), "advertiser": value}.get(
                    condition.dimension, caller.advertiser_id
                )
                if owner != caller.advertiser_id:
                    raise Forbidden(f"this key may not see {condition.dimension} {value!r}")
        return query.with_filter(Filter("advertiser", (caller.advertiser_id,)))
