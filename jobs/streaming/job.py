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
from schemas.campaign_metrics import DIMENSIONS, PACKED_COLUMN, PACKED_NUMBERS, PACKED_TEXTS


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
    """One job: the views that only it reads, what it writes, and which of IDS its sinks take out by themselves."""

    name: str
    outputs: tuple[Output, ...]
    views: tuple[View, ...] = ()
    ids: frozenset[str] = frozenset()


Build = Callable[[Settings], Job]

#: Texts of an event that views hand on as one value (java/PackedTexts.java): a query step of Flink's copies each text
#: of its rows, needed or not. SQL files name them as ${record_id}: taken out there, behind what the step leaves out.
IDS_COLUMN = "packed_ids"
IDS: tuple[str, ...] = ("record_id", "user_pseudonym", "household_pseudonym", "order_id", "source", "content_category")


def sql(name: str, **values: object) -> str:
    """Text of jobs/streaming/sql/<name>.sql, without comments, with its ${...} places filled.

    IDS and the dimensions of an event have their names for places: expressions that take them out of the packed ones.
    Errors: KeyError for a place not given.
    """
    text = resources.files("jobs.streaming").joinpath("sql", f"{name}.sql").read_text()
    text = re.sub(r"--.*", "", text)
    texts = {name: id_text(name) for name in IDS} | {name: _dimension(name, PACKED_COLUMN) for name in DIMENSIONS}
    return Template(text).substitute(texts | {key: str(value) for key, value in values.items()}).strip()


def id_text(name: str) -> str:
    """Expression of one of IDS.

    Example:
    >>> id_text("user_pseudonym")
    'packed_text(packed_ids, 1)'
    """
    return f"packed_text({IDS_COLUMN}, {IDS.index(name)})"


def named_ids(query: str) -> frozenset[str]:
    """Which of IDS a query takes out.

    Example:
    >>> named_ids("SELECT packed_text(packed_ids, 1) AS viewer")
    frozenset({'user_pseudonym'})
    """
    return frozenset(IDS[int(place)] for place in re.findall(rf"packed_text\({IDS_COLUMN}, (\d+)\)", query))


def text_list(values: Iterable[str]) -> str:
    """SQL list of string literals.

    Example:
    >>> text_list(("start", "click"))
    "'start', 'click'"
    """
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def packed_dimension(name: str, packed: str) -> str:
    """Select item of a dimension out of the column in which they are packed (java/PackedText.java and PackedNumber)."""
    return f"{_dimension(name, packed)} AS `{name}`"


def _dimension(name: str, packed: str) -> str:
    if name in PACKED_TEXTS:
        return f"packed_text({packed}, {PACKED_TEXTS.index(name)})"
    return f"packed_number({packed}, {len(PACKED_TEXTS)}, {PACKED_NUMBERS.index(name)})"


def packed_dimensions(packed: str) -> str:
    """Select items of all dimensions."""
    return ",\n  ".join(packed_dimension(name, packed) for name in DIMENSIONS)
