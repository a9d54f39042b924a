"""What a stream job is: queries over logical tables, each with the table that its rows go to.

Nothing here knows Flink's API or an address, so tests run the same queries over bounded views of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from string import Template

from jobs.streaming.settings import Settings
from schemas.campaign_metrics import DIMENSIONS, PACKED_NUMBERS, PACKED_TEXTS


@dataclass(frozen=True, slots=True)
class View:
    """A named query that others read."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Output:
    """Rows of `query` go to the logical table `table`. The query has the table's columns, in any order, or more."""

    table: str
    query: str


@dataclass(frozen=True, slots=True)
class Job:
    """One job: the views that only it reads, and what it writes."""

    name: str
    outputs: tuple[Output, ...]
    views: tuple[View, ...] = ()


Build = Callable[[Settings], Job]


def sql(name: str, **values: object) -> str:
    """Text of jobs/streaming/sql/<name>.sql, without comments, with its ${...} places filled.

    Errors: KeyError for a place not given.
    """
    text = resources.files("jobs.streaming").joinpath("sql", f"{name}.sql").read_text()
    text = re.sub(r"--.*", "", text)
    return Template(text).substitute({key: str(value) for key, value in values.items()}).strip()


def text_list(values: Iterable[str]) -> str:
    """SQL list of string literals.

    Example:
    >>> text_list(("start", "click"))
    "'start', 'click'"
    """
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def packed_dimension(name: str, packed: str) -> str:
    """Select item of a dimension out of the column in which they are packed (java/PackedText.java and PackedNumber)."""
    if name in PACKED_TEXTS:
        return f"packed_text({packed}, {PACKED_TEXTS.index(name)}) AS `{name}`"
    return f"packed_number({packed}, {len(PACKED_TEXTS)}, {PACKED_NUMBERS.index(name)}) AS `{name}`"


def packed_dimensions(packed: str) -> str:
    """Select items of all dimensions."""
    return ",\n  ".join(packed_dimension(name, packed) for name in DIMENSIONS)
