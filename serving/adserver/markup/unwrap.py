"""What DSPs' Wrappers lead to, found out off the request path: the next serving of that creative has its media inline.

A creative that comes wrapped is served as it is the first time, and queued. A worker follows its chain with limits
(wrappers, bytes, time, no private addresses, no entities) and keeps what it found by creative: the InLine with the
trackers of the Wrappers behind the first one, or why it can't be shown. The DSP's own Wrapper is fresh in each bid, so
its trackers are always those of the bid; those behind it are as they were fetched, for `ttl_s` (or the InLine's own
`Expires`, if that is shorter). A broken chain is not bought again for `quarantine_s`, a tenth of that if it is the
network that failed. Memory is bounded in bytes; the creative that was asked for longest ago goes first.
Source: VAST 4.2 §2.3.4 (Wrapper: at most 5, `followAdditionalWrappers`), §2.3.6.3 (error codes 300-303), §3.4 Expires.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from schemas.errors import ConnectorError, TimedOut
from serving.adserver import metrics
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.merging import merge
from serving.adserver.markup.vast_parse import NotVast, ads_of, child, descend, parsed, text_of
from serving.adserver.markup.vast_versions import name_of, version_of

logger = logging.getLogger(__name__)

MOST_WRAPPERS = 5
_MOST_WAITING = 256
_WORKERS = 4
_WRAPPED = re.compile(r"<(?:\w++:)?Wrapper[\s>]")
_CACHEBUSTING = re.compile(r"(?:\[|%5[Bb])(?:CACHEBUSTING|RANDOM)(?:\]|%5[Dd])")


class Broken(Exception):
    """A chain that can't be shown; the message says why, with VAST's error code."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one chain may cost, and how long what was found is believed."""

    document_bytes: int = 262_144
    chain_s: float = 3.0
    ttl_s: float = 300.0
    quarantine_s: float = 600.0
    memory_bytes: int = 33_554_432


@dataclass(frozen=True, slots=True)
class _Found:
    """A chain's InLine document, or why there is none (`problem`)."""

    until_s: float
    document: bytes = b""
    problem: str = ""


class Unwrapper:
    """One per process, in its event loop. `clock` is monotonic."""

    def __init__(self, fetcher: VastFetcher, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetcher = fetcher
        self._limits = limits
        self._clock = clock
        self._found: OrderedDict[str, _Found] = OrderedDict()
        self._bytes = 0
        self._waiting: dict[str, str] = {}
        self._wake = asyncio.Event()

    def look(self, creative_id: str, markup: str) -> bytes | None:
        """The InLine document behind a DSP's markup, without its own Wrapper's trackers; None when it has none or is
        not known yet, which it soon will be. Never waits. Errors: Broken.
        """
        if not _is_address(markup) and _WRAPPED.search(markup) is None:
            return None
        found = self._found.get(creative_id)
        if found is not None and found.until_s > self._clock():
            self._found.move_to_end(creative_id)
            if found.problem:
                metrics.UNWRAPPED.labels("quarantined").inc()
                raise Broken(found.problem)
            metrics.UNWRAPPED.labels("served_inline").inc()
            return found.document
        if creative_id not in self._waiting:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[creative_id] = markup
                self._wake.set()
            else:
                metrics.UNWRAPPED.labels("not_queued").inc()
        return None

    async def run(self) -> None:
        """Follows chains until it is cancelled."""
        async with (
            asyncio.TaskGroup() as workers
        ):  # one that fails ends all, so that whoever starts them again has four
            for _ in range(_WORKERS):
                workers.create_task(self._work())

    async def follow(self, markup: str) -> bytes:
        """The document at the end of a chain. Errors: NotVast; ConnectorError."""
        url = _address(markup, self._limits.document_bytes)
        wrappers: list[etree._Element] = []
        for _ in range(MOST_WRAPPERS):
            url = _CACHEBUSTING.sub(lambda _: f"{random.randrange(10**8):08d}", url)
            root = parsed(await self._fetcher.fetch(url, self._limits.chain_s), self._limits.document_bytes)
            ads = ads_of(root)
            if not ads:
                raise NotVast("303: no Ad behind the Wrapper")
            ad, body = ads[0]
            if name_of(body) == "InLine":
                if not _has_media(body):
                    raise NotVast("401: neither MediaFile nor NonLinear behind the Wrapper")
                for other in list(root):
                    if other is not ad:
                        root.remove(other)
                for wrapper in reversed(wrappers):
                    merge(wrapper, body, version_of(root))
                return etree.tostring(root, encoding="UTF-8")  # ASCII has no spelling for names in other letters
            url = text_of(child(body, "VASTAdTagURI"))
            if (body.get("followAdditionalWrappers") or "").lower() in ("false", "0"):
                raise NotVast("302: a Wrapper does not want to be followed")
            wrappers.append(body)
        raise NotVast(f"302: more than {MOST_WRAPPERS} Wrappers")

    async def _work(self) -> None:
        while True:
            waiting = next((c for c, markup in self._waiting.items() if markup), None)
            if waiting is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            markup, self._waiting[waiting] = self._waiting[waiting], ""  # taken, and not to be queued again
            try:
                self._keep(waiting, await self._judged(markup))
            finally:
                self._waiting.pop(waiting, None)

    async def _judged(self, markup: str) -> _Found:
        limits, now_s = self._limits, self._clock
        try:
            document = await asyncio.wait_for(self.follow(markup), limits.chain_s)
        except NotVast as e:
            problem, life_s = str(e), limits.quarantine_s
        except (TimeoutError, TimedOut):
            problem, life_s = "301: no answer in time", limits.quarantine_s / 10
        except ConnectorError as e:
            problem, life_s = f"300: {e}", limits.quarantine_s / 10
        except Exception:  # strangers' documents: what nobody foresaw of one must not end the work on all others
            logger.exception("chain of wrappers failed")
            problem, life_s = "900: failed", limits.quarantine_s
        else:
            metrics.UNWRAPPED.labels("found").inc()
            return _Found(now_s() + min(limits.ttl_s, _expires_s(document)), document)
        metrics.UNWRAPPED.labels("broken").inc()
        logger.info("chain of wrappers is broken", extra={"detail": problem[:200]})
        return _Found(now_s() + life_s, problem=problem[:200])

    def _keep(self, creative_id: str, found: _Found) -> None:
        before = self._found.pop(creative_id, None)
        self._bytes += _size(found) - (_size(before) if before is not None else 0)
        self._found[creative_id] = found
        while self._bytes > self._limits.memory_bytes and self._found:
            self._bytes -= _size(self._found.popitem(last=False)[1])


def _size(found: _Found) -> int:
    return len(found.document) + len(found.problem) + 512


def _is_address(markup: str) -> bool:
    return markup.lstrip().startswith(("http://", "https://"))


def _address(markup: str, limit_bytes: int) -> str:
    """Where a DSP's markup leads to. Errors: NotVast."""
    if _is_address(markup):
        return markup.strip()
    ads = ads_of(parsed(markup.strip().encode(), limit_bytes))
    url = text_of(child(ads[0][1], "VASTAdTagURI")) if ads else ""
    if not url:
        raise NotVast("101: no VASTAdTagURI in the Wrapper")
    return url


def _has_media(body: etree._Element) -> bool:
    creative = ("Creatives", "Creative")
    return (
        next(descend(body, *creative, "Linear", "MediaFiles", "MediaFile"), None) is not None
        or next(descend(body, *creative, "NonLinearAds", "NonLinear"), None) is not None
    )


def _expires_s(document: bytes) -> float:
    """VAST 4.1 `Expires`, seconds; for ever without one."""
    ads = ads_of(parsed(document, len(document)))
    said = text_of(child(ads[0][1], "Expires"))
    return float(said) if said.isascii() and said.isdigit() and len(said) < 9 else float("inf")
