"""The Java of the stream jobs: the functions of folder `java`, and what the contract of events says in constants."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from connectors.flink.java_jar import Source, sources
from connectors.flink.library import added_jars
from connectors.flink.rest import FlinkRest
from jobs.streaming.job import IDS
from jobs.transforms.sessions import ENGAGEMENTS, NOT_OF_THE_AD
from schemas.campaign_metrics import PACKED_NUMBERS, PACKED_TEXTS
from schemas.events import EVENT_TYPES, OLDEST_MS, SOURCES


@cache
def own_java() -> tuple[Source, ...]:
    """The sources, the same for every deployment."""
    types = [kind.name for kind in EVENT_TYPES]
    contract = f"""package headwater;

final class EventContract {{
    static final long OLDEST_MS = {OLDEST_MS}L;
    static final int RECORD_ID = {IDS.index("record_id")};
    static final int USER = {IDS.index("user_pseudonym")};
    static final int SOURCE = {IDS.index("source")};
    static final int IDS = {len(IDS)};
    static final int PACKED_TEXTS = {len(PACKED_TEXTS)};
    static final int PACKED_NUMBERS = {len(PACKED_NUMBERS)};
    static final String[] EVENT_TYPES = {{{_texts(types)}}};
    static final KnownTexts TYPES = new KnownTexts(EVENT_TYPES);
    static final int IMPRESSION = {types.index("impression")};
    static final int CLICK = {types.index("click")};
    static final int[] QUARTILES = {{{", ".join(str(-1 if k.quartile is None else k.quartile) for k in EVENT_TYPES)}}};
    static final String[] NOT_OF_THE_AD = {{{_texts(NOT_OF_THE_AD)}}};
    static final String[] ENGAGEMENTS = {{{_texts(ENGAGEMENTS)}}};
    static final String[] SOURCES = {{{_texts(SOURCES)}}};
}}
"""
    return (*sources("jobs.streaming"), ("EventContract", contract))


def jars() -> list[Path]:
    """All that a submission of ours needs beside Flink's distribution. Errors: those of library.added_jars."""
    return added_jars(own_java())


def lacking(rest: FlinkRest, *more: Path) -> list[Path]:
    """The jars that have to go with a submission of ours to a cluster, `more` among them; none to one that has all."""
    return rest.lacking([*jars(), *more])


def _texts(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
