"""What a report asks for: its parameters checked and turned into SQL. Pure: no I/O, and the clock is a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas import metrics as catalogue
from schemas.campaign_metrics import DATASOURCE

DEFAULT_INTERVAL = timedelta(hours=24)
DEFAULT_LIMIT = 1000

#: Column of the reach that the k-threshold needs when only metrics derived from it were asked for.
REACH_COLUMN = "reach"


class QueryError(Exception):
    """A report can't be made as asked: a code for programs and a reason for people. The API answers 400 with both."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows whose dimension has one of the values (or, when `excluded`, none of them)."""

    dimension: str
    values: tuple[str, ...]
    excluded: bool = False

    def as_sql(self) -> str:
        column = f'"{catalogue.REPORT_DIMENSIONS[self.dimension]}"'
        marks = ", ".join("?" * len(self.values))
        if self.excluded:  # SQL's NOT IN alone would drop rows that have no value
            return f"({column} IS NULL OR {column} NOT IN ({marks}))"
        return f"{column} IN ({marks})"


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """A checked report. `start` and `end` are whole minutes; `zone` is where hours and days begin."""

    grain: str | None
    dimensions: tuple[str, ...]
    metrics: tuple[str, ...]
    start: datetime
    end: datetime
    zone: ZoneInfo
    filters: tuple[Filter, ...]
    order: tuple[tuple[str, bool], ...]  # column, descending
    limit: int
    offset: int

    def with_filter(self, added: Filter) -> ReportQuery:
        """The same report of fewer rows: how an advertiser's key narrows it."""
        return replace(self, filters=(*self.filters, added))

    @property
    def reads_users(self) -> bool:
        return any(catalogue.BY_NAME[name].is_user_level for name in self.metrics)

    def as_sql(self) -> tuple[str, list[str | datetime | int]]:
        """The SQL with its parameters. It asks for a row more than the page holds, to know whether there is another."""
        parameters: list[str | datetime | int] = []
        columns = [f'{self._grain_sql(self.grain)} AS "{self.grain}"'] if self.grain else []
        columns += [f'"{catalogue.REPORT_DIMENSIONS[name]}" AS "{name}"' for name in self.dimensions]
        keys = len(columns)
        selected = list(self.metrics)
        if self.reads_users and REACH_COLUMN not in selected:
            selected.append(REACH_COLUMN)
        columns += [f'{catalogue.BY_NAME[name].sql} AS "{name}"' for name in selected]

        conditions = ['"__time" >= ?', '"__time" < ?']
        parameters += [self.start, self.end]
        for condition in self.filters:
            conditions.append(condition.as_sql())
            parameters += condition.values
        lines = [f"SELECT {', '.join(columns)}", f'FROM "{DATASOURCE}"', f"WHERE {' AND '.join(conditions)}"]
        if keys:
            lines.append(f"GROUP BY {', '.join(str(i + 1) for i in range(keys))}")
            order = ", ".join(f'"{name}" {"DESC" if down else "ASC"}' for name, down in self.order)
            lines.append(f"ORDER BY {order}")
        lines.append(f"LIMIT {self.limit + 1} OFFSET {self.offset}")
        return "\n".join(lines), parameters

    def _grain_sql(self, grain: str) -> str:
        return f"TIME_FLOOR(\"__time\", '{catalogue.GRAINS[grain]}', NULL, '{self.zone.key}')"

    def interval_of(self, moment: datetime) -> tuple[datetime, datetime]:
        """The interval that a row of this grain beginning at `moment` covers, within the report's."""
        if self.grain is None:
            return self.start, self.end
        local = moment.astimezone(self.zone)
        if self.grain == "month":
            following = (local.replace(day=1) + timedelta(days=32)).replace(day=1)
        elif self.grain in ("day", "week"):  # wall-clock days: 23 or 25 hours where the clocks change
            following = local + timedelta(days=1 if self.grain == "day" else 7)
        else:
            following = moment.astimezone(UTC) + timedelta(minutes=1 if self.grain == "minute" else 60)
        return max(moment, self.start), min(following.astimezone(UTC), self.end)


def parse(
    *,
    dimensions: str,
    metrics: str,
    start: str | None,
    end: str | None,
    time_zone: str,
    filters: Sequence[str],
    order: str | None,
    limit: int,
    offset: int,
    now: datetime,
    max_days: int,
    max_rows: int,
) -> ReportQuery:
    """A checked report from the API's parameters. Errors: QueryError, naming what is known instead."""
    zone = _zone(time_zone)
    names = _names(dimensions)
    grains = [name for name in names if name in catalogue.GRAINS]
    if len(grains) > 1:
        raise QueryError("two_grains", f"only one grain of time fits a report; given: {', '.join(grains)}")
    keys = [name for name in names if name not in catalogue.GRAINS]
    _known(keys, catalogue.REPORT_DIMENSIONS, "dimension", also=catalogue.GRAINS)
    wanted = _names(metrics)
    if not wanted:
        raise QueryError("no_metric", "metrics must name at least one metric")
    _known(wanted, catalogue.BY_NAME, "metric")
    if any(catalogue.BY_NAME[name].is_money for name in wanted) and "currency" not in keys:
        keys.append("currency")  # amounts of different currencies must never meet in one sum

    to_moment = _moment(end, zone, "to") if end else now
    from_moment = _moment(start, zone, "from") if start else to_moment - DEFAULT_INTERVAL
    from_minute, to_minute = _floor_minute(from_moment), _ceil_minute(to_moment)
    if from_minute >= to_minute:
        raise QueryError("empty_interval", "from must lie before to")
    if to_minute - from_minute > timedelta(days=max_days):
        raise QueryError("interval_too_long", f"a report covers at most {max_days} days")

    if limit > max_rows:
        raise QueryError("page_too_long", f"a page has at most {max_rows} rows; next_offset leads to the next one")
    columns = [*grains, *keys, *wanted]
    return ReportQuery(
        grain=grains[0] if grains else None,
        dimensions=tuple(keys),
        metrics=tuple(wanted),
        start=from_minute,
        end=to_minute,
        zone=zone,
        filters=tuple(_filter(text) for text in filters),
        order=_order(order, columns) if order else tuple((name, False) for name in [*grains, *keys]),
        limit=limit,
        offset=offset,
    )


def _names(text: str) -> list[str]:
    """The names of a comma-separated list, once each, in order."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _known(
    names: Sequence[str], known: Mapping[str, object], kind: str, also: Mapping[str, object] | None = None
) -> None:
    for name in names:
        if name not in known:
            offered = ", ".join([*(also or {}), *known])
            raise QueryError(f"unknown_{kind}", f"there is no {kind} {name!r}; there are: {offered}")


def _filter(text: str) -> Filter:
    """`country:DE,AT` or `country!:DE`."""
    dimension, colon, values = text.partition(":")
    excluded = dimension.endswith("!")
    dimension = dimension.removesuffix("!").strip()
    named = _names(values)
    if not colon or not named:
        raise QueryError("bad_filter", f"a filter is dimension:value,value or dimension!:value; given: {text!r}")
    _known([dimension], catalogue.REPORT_DIMENSIONS, "dimension")
    return Filter(dimension, tuple(named), excluded)


def _order(text: str, columns: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    order = []
    for name in _names(text):
        column = name.removeprefix("-")
        if column not in columns:
            raise QueryError("unknown_order", f"order names {column!r}; the report has: {', '.join(columns)}")
        order.append((column, name.startswith("-")))
    return tuple(order)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise QueryError("unknown_time_zone", f"there is no time zone {name!r}; use one like Europe/Berlin") from None


def _moment(text: str, zone: ZoneInfo, name: str) -> datetime:
    """A date, a date and time (in the report's time zone unless it has an offset), or epoch milliseconds."""
    try:
        if text.lstrip("-").isdigit() and len(text) > 8:
            moment = datetime.fromtimestamp(int(text) / 1000, UTC)
        else:
            if text[-6:-5] == " ":  # the + of an offset, which a URL makes a space of unless it is escaped
                text = f"{text[:-6]}+{text[-5:]}"
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise QueryError(
            "bad_time", f"{name}={text!r} is neither an ISO 8601 date or time nor epoch milliseconds"
        ) from None


def _floor_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _ceil_minute(moment: datetime) -> datetime:
    floor = _floor_minute(moment)
    return floor if floor == moment else floor + timedelta(minutes=1)
