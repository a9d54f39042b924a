"""Catalogues, bidders and partners as JSON texts. Every problem in a text is reported, with its JSON path, in one
`ConfigError`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Generator
from dataclasses import MISSING, asdict, fields, replace
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from schemas.catalog import Bidders, Catalog, Partners
from schemas.errors import ConfigError
from schemas.events import BY_NAME


def load_catalog(text: str) -> Catalog:
    """The catalogue of a JSON text. Errors: ConfigError lists every problem with its path."""
    steps = catalog_in_steps(_parse(text))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Catalog, end.value)


def catalog_in_steps(data: Any) -> Generator[None, None, Catalog]:
    """The catalogue of parsed JSON, built with a pause behind each item, for a process that must not stand still.

    Errors: ConfigError lists every problem with its path.
    """
    problems: list[str] = []
    types_of, _ = _fields(Catalog)
    built: dict[str, list[Any]] = {}
    for name, items in data.items() if isinstance(data, dict) else ():
        if isinstance(items, list) and get_origin(types_of.get(name)) is list:
            (kind,) = get_args(types_of[name])
            made = built[name] = []
            for i, item in enumerate(items):
                made.append(_build(kind, item, f"$.{name}[{i}]", problems))
                yield
    rest = data | {name: [] for name in built} if built else data
    catalog = _build(Catalog, rest, "$", problems)
    if not problems:
        catalog = replace(catalog, **built)
        problems += _dangling(catalog)
    if problems:
        raise ConfigError("catalogue: " + "; ".join(problems))
    return cast(Catalog, catalog)


def load_bidders(text: str) -> Bidders:
    """The bidders of a JSON text. Errors: ConfigError lists every problem with its path."""
    problems: list[str] = []
    bidders = _build(Bidders, _parse(text), "$", problems)
    if problems:
        raise ConfigError("bidders: " + "; ".join(problems))
    return bidders


def load_partners(text: str) -> Partners:
    """The partners of a JSON text. Errors: ConfigError lists every problem with its path."""
    problems: list[str] = []
    partners = _build(Partners, _parse(text), "$", problems)
    if problems:
        raise ConfigError("partners: " + "; ".join(problems))
    return partners


def dump(value: Catalog | Bidders | Partners) -> str:
    """JSON text that loads back to the same value."""
    return json.dumps(asdict(value), indent=1) + "\n"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise ConfigError(f"not JSON: {e}") from e


def _build(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    """`value` as `kind`; what does not fit is appended to `problems`."""
    origin = get_origin(kind)
    if origin is list:
        if not isinstance(value, list):
            problems.append(f"{path}: expected a list")
            return []
        (item,) = get_args(kind)
        return [_build(item, v, f"{path}[{i}]", problems) for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"{path}: expected an object")
            return {}
        _, item = get_args(kind)
        return {k: _build(item, v, f"{path}.{k}", problems) for k, v in value.items()}
    if origin in (Union, types.UnionType):
        inner = next(a for a in get_args(kind) if a is not type(None))
        return None if value is None else _build(inner, value, path, problems)
    if kind in (str, int, bool):
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            problems.append(f"{path}: expected {kind.__name__}, got {type(value).__name__}")
        return value
    if not isinstance(value, dict):
        problems.append(f"{path}: expected an object")
        return None
    hints, known = _fields(kind)
    problems += [f"{path}.{name}: unknown field" for name in value.keys() - known.keys()]
    arguments = {}
    for name, f in known.items():
        if name in value:
            arguments[name] = _build(hints[name], value[name], f"{path}.{name}", problems)
        elif f.default is MISSING and f.default_factory is MISSING:
            problems.append(f"{path}.{name}: missing")
            arguments[name] = None
    return kind(**arguments)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(types, fields) of a dataclass by name: resolving its annotations costs more than a creative does otherwise."""
    return get_type_hints(kind), {f.name: f for f in fields(kind)}


def _dangling(catalog: Catalog) -> list[str]:
    """References that point nowhere, ids that are given twice, events that never happen."""
    problems = []
    ids: dict[str, set[str]] = {}
    for room in ("advertisers", "campaigns", "line_items", "creatives", "publishers", "placements", "experiments"):
        seen: set[str] = set()
        for i, item in enumerate(getattr(catalog, room)):
            if item.id in seen:
                problems.append(f"$.{room}[{i}].id: {item.id!r} is given twice")
            seen.add(item.id)
        ids[room] = seen
    references = (
        ("campaigns", "advertiser_id", "advertisers"),
        ("line_items", "campaign_id", "campaigns"),
        ("creatives", "line_item_id", "line_items"),
        ("placements", "publisher_id", "publishers"),
    )
    for room, column, target in references:
        for i, item in enumerate(getattr(catalog, room)):
            if getattr(item, column) not in ids[target]:
                problems.append(f"$.{room}[{i}].{column}: no such id {getattr(item, column)!r}")
    for i, experiment in enumerate(catalog.experiments):
        named = [("advertisers", a) for a in experiment.advertiser_ids]
        named += [("campaigns", c) for c in experiment.campaign_ids]
        named += [("line_items", x) for cell in experiment.cells for x in cell.off_line_items]
        problems += [f"$.experiments[{i}]: no such id {x!r} in {room}" for room, x in named if x not in ids[room]]
    for i, creative in enumerate(catalog.creatives):
        problems += [
            f"$.creatives[{i}].trackers.{name}: no such event type" for name in creative.trackers if name not in BY_NAME
        ]
    return problems
