"""The reporting API's doors: keys, what an advertiser may see, refusals with a reason, Druid's failures."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest

from connectors.api_keys import ADMIN, KeyChecker, ensure_keys, read_keys
from connectors.druid import DruidClient
from schemas.catalog import Advertiser, Campaign, Catalog
from schemas.catalog_text import dump
from schemas.errors import ConfigError
from serving.reporting.access import Directory
from serving.reporting.app import Services, create_app
from serving.reporting.freshness import Freshness, FreshnessWatch
from serving.reporting.settings import ReportingSettings


def catalog(*advertisers: str) -> Catalog:
    return Catalog(
        version=1,
        currency="USD",
        advertisers=[Advertiser(id=name, name=name.title(), domain=f"{name}.example") for name in advertisers],
        campaigns=[
            Campaign(id=f"{name}-c1", advertiser_id=name, name=f"{name} one", daily_budget_micros=5)
            for name in advertisers
        ],
        line_items=[],
        creatives=[],
        publishers=[],
        placements=[],
    )


class Api:
    """The app over a Druid whose answers the test gives; requests go through the whole of it, without a socket."""

    def __init__(self, home):
        self.catalog_path = home / "catalog.json"
        self.keys_path = home / "secrets" / "keys.json"
        self.catalog_path.write_text(dump(catalog("acme", "bolt")))
        self.asked: list[dict] = []
        self.answer = lambda: httpx.Response(200, json=[])
        druid = DruidClient("http://broker", "http://coordinator", transport=httpx.MockTransport(self._druid))
        self.directory = Directory(self.catalog_path, self.keys_path)
        watch = FreshnessWatch(druid, interval_s=2, behind_ms=15_000)
        clock = lambda: datetime(2026, 3, 1, 12, tzinfo=UTC)  # noqa: E731
        self.app = create_app(Services(druid, self.directory, ReportingSettings(), watch, clock=clock))

    def _druid(self, request: httpx.Request) -> httpx.Response:
        if request.content:
            self.asked.append(json.loads(request.content))
        return self.answer()

    def get(self, path: str, principal: str | None = ADMIN, **parameters) -> httpx.Response:
        headers = {}
        if principal is not None:
            headers["Authorization"] = f"Bearer {read_keys(self.keys_path).get(principal, principal)}"

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://reporting") as client:
                return await client.get(path, params=parameters, headers=headers)

        return asyncio.run(go())


@pytest.fixture
def api(tmp_path) -> Api:
    return Api(tmp_path)


@pytest.mark.parametrize("path", ["/v1/report?metrics=clicks", "/v1/campaigns", "/v1/freshness"])
@pytest.mark.parametrize("principal", [None, "a-wrong-key"])
def test_no_answer_without_a_good_key(api, path, principal):
    answer = api.get(path, principal)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert api.asked == []


def test_an_advertiser_sees_only_its_own(api):
    assert [c["campaign"] for c in api.get("/v1/campaigns", "acme").json()["campaigns"]] == ["acme-c1"]
    assert len(api.get("/v1/campaigns").json()["campaigns"]) == 2
    assert api.get("/v1/report", "acme", metrics="clicks").status_code == 200
    assert '"advertiser_id" IN (?)' in api.asked[-1]["query"]
    assert api.asked[-1]["parameters"][-1] == {"type": "VARCHAR", "value": "acme"}


@pytest.mark.parametrize("condition", ["campaign:bolt-c1", "campaign:acme-c1,bolt-c1", "advertiser:bolt", "campaign:x"])
def test_asking_for_others_campaigns_is_forbidden(api, condition):
    answer = api.get("/v1/report", "acme", metrics="clicks", filter=condition)
    assert answer.status_code == 403
    assert api.asked == [], "Druid is not even asked"
    assert api.get("/v1/report", metrics="clicks", filter=condition).status_code == 200, "the admin may"


def test_an_advertiser_may_filter_by_what_is_its_own(api):
    assert api.get("/v1/report", "acme", metrics="clicks", filter="campaign:acme-c1").status_code == 200


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"metrics": "nonsense"}, "unknown_metric"),
        ({}, "bad_parameter"),
        ({"metrics": "clicks", "dimensions": "shoe_size"}, "unknown_dimension"),
        ({"metrics": "clicks", "from": "noon"}, "bad_time"),
        ({"metrics": "clicks", "limit": "0"}, "bad_parameter"),
        ({"metrics": "clicks", "limit": "many"}, "bad_parameter"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(api, parameters, code):
    answer = api.get("/v1/report", **parameters)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("druid", "status", "code"),
    [
        (httpx.Response(503, text="starting"), 503, "druid_unavailable"),
        (httpx.Response(504, text="timeout"), 504, "druid_timed_out"),
        (httpx.Response(400, json={"errorMessage": "Incorrect syntax"}), 500, "query_refused"),
    ],
)
def test_druids_failures_are_told_apart_and_tell_nothing_of_the_inside(api, druid, status, code):
    api.answer = lambda: druid
    answer = api.get("/v1/report", metrics="clicks")
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert "druid/v2" not in answer.text
    assert api.get("/status").status_code == 503


def test_a_long_report_comes_in_pages(api):
    api.answer = lambda: httpx.Response(200, json=[{"campaign": str(i), "clicks": i} for i in range(3)])
    page = api.get("/v1/report", metrics="clicks", dimensions="campaign", limit=2).json()
    assert [row["campaign"] for row in page["rows"]] == ["0", "1"]
    assert page["next_offset"] == 2
    assert api.get("/v1/report", metrics="clicks", dimensions="campaign", limit=3).json()["next_offset"] is None


def test_a_report_never_hides_that_it_may_be_behind(api):
    freshness = api.get("/v1/report", metrics="clicks").json()["freshness"]
    assert freshness["is_behind"] is True
    assert "not looked at yet" in freshness["behind_reason"]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Freshness(checked_ms=10_000, reading=True, behind_offsets=0, lag_ms=0, problem=None), None),
        (Freshness(checked_ms=10_000, reading=True, behind_offsets=9, lag_ms=15_000, problem=None), None),
        (Freshness(checked_ms=10_000, reading=True, behind_offsets=9, lag_ms=15_001, problem=None), "published 15 s"),
        (Freshness(checked_ms=10_000, reading=False, behind_offsets=0, lag_ms=0, problem=None), "no ingestion task"),
        (Freshness(checked_ms=-10_000, reading=True, behind_offsets=0, lag_ms=0, problem=None), "too long ago"),
        (Freshness(checked_ms=10_000, problem="Kafka: down"), "Kafka: down"),
    ],
)
def test_behind_is_said_with_its_reason(seen, reason):
    watch = FreshnessWatch(DruidClient("http://broker", "http://coordinator"), interval_s=2, behind_ms=15_000)
    watch._latest = seen
    shown = watch.as_json(now_ms=11_000)
    assert shown["is_behind"] is (reason is not None)
    assert reason is None or reason in shown["behind_reason"]


def test_an_advertiser_added_to_the_catalogue_gets_a_key_without_a_restart(api):
    old = read_keys(api.keys_path)
    api.catalog_path.write_text(dump(catalog("acme", "bolt", "corn")))
    assert api.get("/v1/campaigns", "acme").status_code == 200
    assert api.get("/v1/campaigns", "corn").json()["campaigns"][0]["advertiser"] == "corn"
    assert {name: read_keys(api.keys_path)[name] for name in old} == old, "keys handed out stay good"


def test_the_key_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "secrets" / "keys.json"
    keys = ensure_keys(path, [ADMIN, "acme"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys[ADMIN] != keys["acme"]
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        ensure_keys(path, [ADMIN])


def test_the_checker_keeps_no_key(tmp_path):
    checker = KeyChecker({"acme": "the-secret-key"})
    assert checker.principal_of("the-secret-key") == "acme"
    assert checker.principal_of("") is None
    assert "the-secret-key" not in repr(vars(checker))


def test_openapi_documents_every_door(api):
    described = api.get("/openapi.json", None).json()
    assert set(described["paths"]) == {"/v1/report", "/v1/campaigns", "/v1/freshness", "/v1/metrics", "/status"}
    names = {parameter["name"] for parameter in described["paths"]["/v1/report"]["get"]["parameters"]}
    assert names >= {"metrics", "dimensions", "from", "to", "filter", "time_zone", "order", "limit", "offset"}
