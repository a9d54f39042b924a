"""The reporting API's doors. `create_app` wires them; requests run on worker threads, off the event loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from connectors.druid import DruidClient
from schemas.errors import ConfigError, ConnectorError, Refused, TimedOut
from schemas.metrics import GRAINS, METRICS, REPORT_DIMENSIONS
from serving.reporting.access import Caller, Directory, Forbidden
from serving.reporting.answer import columns_of, described, report_rows
from serving.reporting.data_status import DataStatus
from serving.reporting.freshness import FreshnessWatch
from serving.reporting.query import DEFAULT_LIMIT, QueryError, parse
from serving.reporting.settings import ReportingSettings

log = logging.getLogger(__name__)

DESCRIPTION = """
Delivery, spend, reach and conversions of campaigns, by dimension and grain of time.

- **Keys**: `Authorization: Bearer <key>`. An advertiser's key sees its own campaigns, the admin key all.
- **Money**: integer micros. A report with money is always split by `currency`.
- **Status of a row**: `streaming` (live, may still change), `corrected` (recomputed from the lake), `final` (billed).
- **Users**: reach and frequency are null, with the reason in `suppressed`, where too few users stand behind them.
- **Freshness**: every report says when the last event came in, and whether Druid is behind.
- **Errors**: `{"error": {"code", "reason"}}`.
"""

_METRICS_HELP = "comma-separated: " + ", ".join(metric.name for metric in METRICS)
_DIMENSIONS_HELP = f"comma-separated: at most one of {', '.join(GRAINS)}, and any of {', '.join(REPORT_DIMENSIONS)}"
_FILTER_HELP = "dimension:value,value or dimension!:value; may be given several times, all must hold"


class Unauthorized(Exception):
    """No key, or none that anybody has."""


@dataclass(frozen=True)
class Services:
    """What the doors need.

    `hour_statuses` gives the hours, by UTC start, that a correction has replaced: every other hour is streaming.
    """

    druid: DruidClient
    directory: Directory
    settings: ReportingSettings
    freshness: FreshnessWatch
    hour_statuses: Callable[[], dict[datetime, DataStatus]] = dict
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


def _services(request: Request) -> Services:
    return request.app.state.services


def _caller(
    request: Request,
    given: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="an advertiser's key, or the admin key")),
    ],
) -> Caller:
    caller = _services(request).directory.caller(given.credentials) if given else None
    if caller is None:
        raise Unauthorized("no key or a wrong one: send Authorization: Bearer <key>")
    return caller


Wired = Annotated[Services, Depends(_services)]
Authorized = Annotated[Caller, Depends(_caller)]

router = APIRouter()


@router.get("/v1/report", tags=["reports"], summary="Metrics by dimensions and time")
def report(
    services: Wired,
    caller: Authorized,
    metrics: Annotated[str, Query(description=_METRICS_HELP, examples=["impressions,clicks,spend_micros,ctr"])],
    dimensions: Annotated[str, Query(description=_DIMENSIONS_HELP, examples=["campaign,hour"])] = "",
    start: Annotated[
        str | None,
        Query(alias="from", description="ISO 8601 or epoch ms, inclusive; default: 24 hours before `to`"),
    ] = None,
    end: Annotated[str | None, Query(alias="to", description="ISO 8601 or epoch ms, exclusive; default: now")] = None,
    time_zone: Annotated[str, Query(description="where hours and days begin", examples=["Europe/Berlin"])] = "UTC",
    filter: Annotated[list[str] | None, Query(description=_FILTER_HELP, examples=[["country:DE,AT"]])] = None,
    order: Annotated[str | None, Query(description="columns of the report; -column: greatest first")] = None,
    limit: Annotated[int, Query(ge=1, description="rows of the page")] = DEFAULT_LIMIT,
    offset: Annotated[int, Query(ge=0, description="`next_offset` of the page before")] = 0,
) -> dict[str, Any]:
    settings = services.settings
    query = parse(
        dimensions=dimensions,
        metrics=metrics,
        start=start,
        end=end,
        time_zone=time_zone,
        filters=filter or (),
        order=order,
        limit=limit,
        offset=offset,
        now=services.clock(),
        max_days=settings.max_days,
        max_rows=settings.max_rows,
    )
    query = services.directory.narrowed(query, caller)
    freshness = services.freshness.as_json()  # before the query: what it says holds for the rows
    rows = services.druid.sql(*query.as_sql())
    return {
        "from": query.start.astimezone(query.zone).isoformat(),
        "to": query.end.astimezone(query.zone).isoformat(),
        "time_zone": query.zone.key,
        "columns": columns_of(query),
        "rows": report_rows(
            query,
            rows,
            names=services.directory.names,
            min_users=settings.min_users,
            hours=services.hour_statuses(),
        ),
        "next_offset": query.offset + query.limit if len(rows) > query.limit else None,
        "freshness": freshness,
    }


@router.get("/v1/campaigns", tags=["reports"], summary="The campaigns that the key may see")
def campaigns(services: Wired, caller: Authorized) -> dict[str, Any]:
    directory = services.directory
    return {
        "campaigns": [
            {
                "campaign": campaign.id,
                "campaign_name": campaign.name,
                "advertiser": campaign.advertiser_id,
                "advertiser_name": directory.names["advertiser"][campaign.advertiser_id],
                "status": campaign.status,
                "daily_budget_micros": campaign.daily_budget_micros,
                "currency": directory.catalog.currency,
                "pacing": campaign.pacing,
            }
            for campaign in directory.campaigns(caller)
        ]
    }


@router.get("/v1/freshness", tags=["reports"], summary="How fresh the numbers are")
def freshness_now(services: Wired, _caller: Authorized) -> dict[str, Any]:
    return services.freshness.as_json()


@router.get("/v1/metrics", tags=["reference"], summary="Every metric and dimension, with meaning and unit")
def metrics_known() -> dict[str, Any]:
    return {
        "metrics": [described(metric) for metric in METRICS],
        "dimensions": list(REPORT_DIMENSIONS),
        "grains": list(GRAINS),
    }


@router.get("/status", tags=["operations"], summary="200 when reports can be made")
def status(services: Wired) -> JSONResponse:
    ready = services.druid.ready()
    return JSONResponse({"ready": ready, "druid": "ready" if ready else "unavailable"}, 200 if ready else 503)


def create_app(services: Services) -> FastAPI:
    """The API over its services. It starts and stops the watch on freshness, and closes Druid's client."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        services.freshness.start()
        yield
        services.freshness.stop()
        services.druid.close()

    app = FastAPI(title="Headwater reporting", version="1", description=DESCRIPTION, lifespan=lifespan)
    app.state.services = services
    app.include_router(router)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Every refusal and failure as `{"error": {"code", "reason"}}` with the status that fits."""

    def answer(status: int, code: str, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": {"code": code, "reason": reason}}, status_code=status, headers=headers)

    @app.exception_handler(QueryError)
    def bad_query(_request: Request, error: QueryError) -> JSONResponse:
        return answer(400, error.code, error.reason)

    @app.exception_handler(RequestValidationError)
    def bad_parameter(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(400, "bad_parameter", f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(Unauthorized)
    def no_key(_request: Request, error: Unauthorized) -> JSONResponse:
        return answer(401, "unauthorized", str(error), {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(Forbidden)
    def not_yours(_request: Request, error: Forbidden) -> JSONResponse:
        return answer(403, "forbidden", str(error))

    @app.exception_handler(ConnectorError)
    def druid_failed(_request: Request, error: ConnectorError) -> JSONResponse:
        log.warning("report_failed", extra={"error": str(error)})
        if isinstance(error, TimedOut):
            return answer(504, "druid_timed_out", "the query took too long: ask for less, or try again")
        if isinstance(error, Refused):
            return answer(500, "query_refused", "the report could not be made; the service's log says why")
        return answer(503, "druid_unavailable", "the report could not be made now: try again", {"Retry-After": "5"})

    @app.exception_handler(ConfigError)
    def catalogue_wrong(_request: Request, error: ConfigError) -> JSONResponse:
        log.error("catalogue_unreadable", extra={"error": str(error)})
        return answer(503, "catalogue_unreadable", "the catalogue can't be read")
