"""What the demo prints at its end, each table from the door that its reader would use."""

from __future__ import annotations

import sys
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from connectors.api_keys import ADMIN, FILE_NAME, read_keys
from connectors.endpoints import Endpoints
from infra.demo.caps import CapRow
from infra.demo.freshness import Freshness, quantile
from infra.demo.learning import Training
from schemas.errors import Unavailable

#: The bars that freshness is held to, p99 in ms.
VALKEY_BAR_MS = 1_500
DRUID_BAR_MS = 12_000
_PLAIN_WIDTH = 160


def console() -> Console:
    """The terminal, or wide plain lines where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)


def print_freshness(console: Console, found: Freshness, first: Freshness) -> None:
    """Event to Valkey and event to Druid; the very first ads, which met cold JVMs, in a line of their own."""
    table = Table(title="freshness during traffic (ms)", title_justify="left")
    for name in ("path", "probes", "p50", "p99", "bar (p99)"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for path, values, bar in (
        ("event → Valkey, cap visible to the ad server", found.valkey_ms, VALKEY_BAR_MS),
        ("event → Druid, queryable", found.druid_ms, DRUID_BAR_MS),
    ):
        half, most = quantile(values, 0.5), quantile(values, 0.99)
        style = "" if most is not None and most <= bar else "yellow"
        table.add_row(path, str(len(values)), _number(half), _number(most), f"{bar:,}", style=style)
    console.print(table)
    slowest = [_number(max(values, default=None)) for values in (first.valkey_ms, first.druid_ms)]
    console.print(f"the first ads, through cold JVMs, at most: Valkey {slowest[0]}, Druid {slowest[1]}", style="dim")
    if missed := found.missed + first.missed:
        console.print(f"{missed} probes were not seen in time", style="yellow")


def top_campaigns(ends: Endpoints, limit: int = 8) -> list[dict[str, Any]]:
    """Rows of the reporting API, as an account manager with the admin key gets them. Errors: Unavailable."""
    try:
        answer = httpx.get(
            f"{ends.reporting_url}/v1/report",
            params={
                "dimensions": "campaign",
                "metrics": "impressions,clicks,ctr,completes,spend_micros,reach",
                "order": "-spend_micros",
                "limit": str(limit),
            },
            headers={"Authorization": f"Bearer {read_keys(ends.secrets / FILE_NAME)[ADMIN]}"},
            timeout=15.0,
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"reporting API: {error}") from error
    return answer.json()["rows"]


def print_top_campaigns(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("campaign", "impressions", "clicks", "ctr", "completes", "spend_micros", "currency", "reach")
    table = Table(title="top campaigns by spend, from the reporting API", title_justify="left")
    for name in (*columns, "data_status"):
        table.add_column(name, justify="right" if name not in ("campaign", "data_status") else "left")
    for row in rows:
        title = row.get("campaign_name") or row.get("campaign")
        cells = [_cell(row.get(column)) for column in columns[1:]]
        table.add_row(str(title), *cells, str(row.get("data_status", "")))
    console.print(table)


def print_caps(console: Console, user: str, rows: list[CapRow]) -> None:
    table = Table(title=f"caps of {user} as the ad server reads them", title_justify="left")
    for name in ("campaign", "scope", "id", "window", "seen", "in this ledger", "limit", "one more?"):
        table.add_column(name, justify="right" if name in ("seen", "in this ledger", "limit") else "left")
    for row in rows:
        table.add_row(
            row.campaign_id,
            row.scope,
            row.scope_id,
            "lifetime" if row.window_s is None else f"{row.window_s // 3600} h",
            str(row.seen),
            str(row.truth),
            str(row.limit),
            "yes" if row.seen < row.limit else "no",
            style="red" if row.seen < row.truth else "",
        )
    console.print(table)


def print_entropy(console: Console, training: Training) -> None:
    """The model against what served before it, on the same held-out ads."""
    table = Table(title="click model: normalised entropy (smaller is better)", title_justify="left")
    for name in ("held-out ads", "clicks", f"before ({training.against})", "after", "version", "verdict"):
        table.add_column(name, justify="left" if name in ("version", "verdict") else "right")
    table.add_row(
        f"{training.held_out_ads:,}",
        f"{training.held_out_clicks:,}",
        f"{training.before:.4f}",
        f"{training.after:.4f}",
        training.version,
        training.words,
    )
    console.print(table)


def print_where_to_look(console: Console, ends: Endpoints, running: bool) -> None:
    """The addresses, and how to have them again."""
    console.print("where to look next:" if running else "the same addresses after `headwater up`:")
    for what, address in (
        ("Flink's jobs", ends.flink_rest_url),
        ("reporting API", f"{ends.reporting_url}/docs"),
        ("MLflow", ends.mlflow_url),
        ("Druid SQL", f"{ends.druid_broker_url}/druid/v2/sql"),
        ("an ad", f"{ends.adserver_url}/vast?placement=pl-1-pre&user=you&device=ctv&country=US"),
    ):
        console.print(f"  {what:<14} {address}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "-")
