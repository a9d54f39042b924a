"""The server as its users meet it: a process behind its port, on a real Valkey, Kafka, schema registry and MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lxml import etree

from connectors.endpoints import Endpoints
from connectors.kafka import consumer
from connectors.keys import KeyRing
from connectors.tokens import TokenOpener
from connectors.valkey import Valkey
from infra.local import control
from infra.local.stack import COMPONENTS
from schemas.catalog import Bidders
from schemas.catalog_text import dump
from schemas.codec import decode, parsed_schema, split_header
from schemas.decisions import Degraded
from schemas.ids import encode_id
from schemas.redis_layout import MATERIALIZER_MARKER, registry_key
from schemas.registry_record import AdRecord
from schemas.topics import AD_DECISIONS
from serving.adserver.features.columns import COLUMNS
from tests.samples.adserver import bid_request, catalog

ROOT = Path(__file__).resolve().parents[2]
HOUSE = {"id": "h", "pricing": "house", "bid_micros": 0}
ADS = [
    {"id": "a", "pricing": "cpm", "bid_micros": 2_345_678},
    {"id": "b", "pricing": "cpc", "bid_micros": 100_000},
    {"id": "c", "pricing": "cpm", "bid_micros": 1_000_000, "format": "banner"},
    HOUSE,
]
START_S = 90.0


def _eventually(ask: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """What `ask` gives once it is true."""
    ends = time.monotonic() + timeout_s
    while True:
        try:
            if found := ask():
                return found
        except httpx.HTTPError:
            pass
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.1)


class Process:
    """A running ad server with a home of its own, on the test services' ports but for its own."""

    def __init__(self, where: Endpoints, home: Path, **changes: str) -> None:
        self.home = home
        self.catalog = home / "catalog.json"
        self.catalog.write_text(dump(catalog(ADS)))
        (home / "bidders.json").write_text(dump(Bidders(1, [])))
        # store round trips are bounded by 20 ms in production; a machine that runs tests beside it may be slower
        own = {"HEADWATER_HOME": str(home), "HEADWATER_PORT_BASE": str(where.port_base)}
        own |= {"HEADWATER_ADSERVER_STORE_TIMEOUT_MS": "2000", "HEADWATER_ADSERVER_MODEL_POLL_S": "0.2"}
        own |= {"HEADWATER_MLFLOW_URL": "http://127.0.0.1:9"}  # no model, whatever other tests have registered
        self._log = (home / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.adserver"],
            cwd=ROOT,
            env=os.environ | own | changes,
            stderr=self._log,
        )
        self.http = httpx.Client(base_url=where.adserver_url, timeout=10.0)
        _eventually(lambda: self.status()["valkey"] and self.status()["decision_log"], START_S)

    def status(self) -> dict[str, Any]:
        return self.http.get("/status").json()

    def stop(self) -> int:
        self.http.close()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        self._log.close()
        return code


@pytest.fixture(autouse=True)
def _complete(local_services: Endpoints) -> Iterator[None]:
    """The materializer has written everything: budgets are known."""
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("SET", MATERIALIZER_MARKER, "this run")
        yield
        valkey.call("DEL", MATERIALIZER_MARKER)


@pytest.fixture
def server(local_services: Endpoints, tmp_path: Path) -> Iterator[Process]:
    process = Process(local_services, tmp_path)
    yield process
    process.stop()


def _plain(document: bytes) -> etree._Element:
    root = etree.fromstring(document)
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    return root


def _logged(request_id: str) -> dict[str, Any]:
    reader = consumer("test", f"test-{request_id}", [AD_DECISIONS.name])
    ends = time.monotonic() + 40
    try:
        while time.monotonic() < ends:
            message = reader.poll(0.5)
            if message is not None and message.error() is None and message.key() == request_id.encode():
                return decode(split_header(message.value())[1], parsed_schema("ad_decision"))
    finally:
        reader.close()
    pytest.fail("the decision did not reach Kafka")


def test_an_ad_is_answered_registered_and_logged(server: Process, local_services: Endpoints) -> None:
    answer = server.http.get(
        "/vast?placement=pl-video&user=someone&device=ctv&country=US&ip=192.0.2.7&session=s1&tmax=1000"
    )
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/xml")
    root = _plain(answer.content)
    assert root.findtext(".//CampaignId") == "cmp-a" and root.findtext("Ad/InLine/Pricing") == "2.345678"
    keys = KeyRing.load(server.home / "secrets")
    claims = TokenOpener(keys).open(root.findtext(".//Impression").rpartition("/t/")[2])
    record_id = encode_id(claims.record_id)
    with Valkey(local_services.valkey_url) as valkey:
        record = AdRecord.from_bytes(valkey.call("GET", registry_key(record_id)))
    assert (record.campaign_id, record.impression_cost_micros, record.placement_id) == (
        "cmp-a",
        2345,
        "pl-video",
    )
    assert record.user_pseudonym == keys.pseudonym("someone") and record.session_context == "s1"
    decision = _logged(record.request_id)
    assert (decision["record_id"], decision["winner_creative_id"]) == (record_id, "cr-a")
    assert set(decision["features"]) == set(COLUMNS.names)
    assert decision["reasons"] == [Degraded.MODEL_UNAVAILABLE]
    assert {c["creative_id"] for c in decision["candidates"]} == {"cr-a", "cr-b"}
    assert "someone" not in (server.home / "log").read_text()


def test_openrtb_answers_each_imp_and_says_why_not(server: Process) -> None:
    imps = [
        {"id": "1", "tagid": "pl-video", "video": {"mimes": ["video/mp4"]}},
        {"id": "2", "tagid": "pl-banner", "banner": {"w": 300, "h": 250}},
        {"id": "3", "audio": {"mimes": ["audio/mp4"]}},
    ]
    answer = server.http.post("/openrtb2/auction", json=bid_request(imp=imps, tmax=1000))
    assert answer.status_code == 200
    body = answer.json()
    bids = {b["impid"]: b for seat in body["seatbid"] for b in seat["bid"]}
    assert body["id"] == "req-1" and body["cur"] == "USD" and set(bids) == {"1", "2"}
    assert bids["1"]["price"] == 2.345678 and "<VAST" in bids["1"]["adm"] and bids["1"]["mtype"] == 2
    assert bids["2"]["mtype"] == 1 and set(bids["2"]["ext"]["headwater"]["trackers"]) == {
        "impression",
        "viewable",
        "click",
    }
    nothing = server.http.post("/openrtb2/auction", json=bid_request(imp=imps[2:]))
    assert nothing.status_code == 204
    assert str(int(Degraded.NO_CANDIDATE)) in nothing.headers["x-headwater-reason"].split(",")
    euro = server.http.post("/openrtb2/auction", json=bid_request(cur=["EUR"]))
    assert euro.status_code == 204


def test_wrong_requests_are_refused_in_words(server: Process) -> None:
    bad = server.http.post("/openrtb2/auction", json=bid_request(imp=[{"id": "1", "video": {"mimes": "x"}}]))
    assert bad.status_code == 400 and bad.json()["path"] == "$.imp[0].video.mimes"
    assert server.http.post("/openrtb2/auction", content=b"\x00" * 5_000_000).status_code == 413
    assert server.http.get("/vast").status_code == 400
    assert server.http.post("/vast").status_code == 405
    assert server.http.get("/nowhere").status_code == 404
    empty = server.http.get("/vast?placement=pl-banner")
    assert empty.status_code == 200 and _plain(empty.content).find("Ad") is None
    assert b"adserver_requests_total" in server.http.get("/metrics").content


def test_files_are_reloaded_and_broken_ones_change_nothing(server: Process) -> None:
    server.catalog.write_text("{")
    _eventually(lambda: server.status()["problems"] and any("JSON" in p for p in server.status()["problems"]))
    assert server.status()["creatives"] == len(ADS)
    server.catalog.write_text(dump(catalog(ADS[:1])))
    _eventually(lambda: server.status()["creatives"] == 1)


def test_without_valkey_the_player_gets_the_house_ad(local_services: Endpoints, tmp_path: Path) -> None:
    home = tmp_path
    process = None
    try:
        process = _without_valkey(local_services, home)
        answer = httpx.get(f"{local_services.adserver_url}/vast?placement=pl-video&user=u&tmax=1000", timeout=10)
        assert answer.status_code == 200 and b"/t/" not in answer.content
        assert _plain(answer.content).findtext(".//CampaignId") == "cmp-h"
        reasons = {int(r) for r in answer.headers["x-headwater-reason"].split(",")}
        assert {Degraded.HOUSE_AD, Degraded.REGISTRY_UNAVAILABLE, Degraded.BUDGET_UNAVAILABLE} <= reasons
    finally:
        if process is not None:
            process.terminate()
            assert process.wait(30) == 0


def _without_valkey(where: Endpoints, home: Path) -> subprocess.Popen[bytes]:
    (home / "catalog.json").write_text(dump(catalog(ADS)))
    (home / "bidders.json").write_text(dump(Bidders(1, [])))
    own = {"HEADWATER_HOME": str(home), "HEADWATER_PORT_BASE": str(where.port_base)}
    own |= {"HEADWATER_VALKEY_URL": "redis://127.0.0.1:9/0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.adserver"], cwd=ROOT, env=os.environ | own, stderr=subprocess.DEVNULL
    )
    _eventually(lambda: httpx.get(f"{where.adserver_url}/status").status_code == 200, START_S)
    return process


def test_wrong_settings_end_the_process_with_code_2(tmp_path: Path) -> None:
    own = {"HEADWATER_HOME": str(tmp_path), "HEADWATER_ADSERVER_MARGIN_MS": "soon"}
    done = subprocess.run(
        [sys.executable, "-m", "serving.adserver"],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2 and b"margin_ms" in done.stderr


def test_a_champion_is_served_without_a_restart(local_services: Endpoints, tmp_path: Path) -> None:
    control.up(local_services, COMPONENTS, ["mlflow"], timeout_s=180)
    name = f"ctr-{uuid.uuid4().hex}"
    server = Process(
        local_services,
        tmp_path,
        HEADWATER_MLFLOW_URL=local_services.mlflow_url,
        HEADWATER_ADSERVER_MODEL_NAME=name,
    )
    try:
        assert server.status()["model_version"] is None
        with httpx.Client(base_url=local_services.mlflow_url, timeout=60) as mlflow:
            _registered(mlflow, name, tamper=True)
            _eventually(lambda: "refused" in (server.home / "log").read_text(), 60)
            assert server.status()["model_version"] is None
            version = _registered(mlflow, name, tamper=False)
            _eventually(lambda: server.status()["model_version"] == f"{name}-v{version}", 60)
        answer = server.http.get("/vast?placement=pl-video&user=someone&tmax=1000")
        assert answer.status_code == 200 and "x-headwater-reason" not in answer.headers
    finally:
        assert server.stop() == 0


def _registered(mlflow: httpx.Client, model_name: str, tamper: bool) -> str:
    """A small model registered as the champion over MLflow's own interface; `tamper` breaks its probe rows."""
    import lightgbm  # imports for seconds, and only this test trains
    import numpy as np

    from schemas.features import CATEGORICAL_FEATURES, CONTEXT_FEATURES, FEATURES, model_inputs

    def ask(method: str, path: str, **data: Any) -> dict[str, Any]:
        answer = mlflow.request(method, f"/api/2.0/mlflow/{path}", json=data)
        if answer.status_code == 400 and answer.json().get("error_code") == "RESOURCE_ALREADY_EXISTS":
            return {}
        answer.raise_for_status()
        return answer.json()

    inputs = list(model_inputs())
    rng = np.random.default_rng(1)
    rows = rng.random((500, len(inputs)))
    data = lightgbm.Dataset(rows, (rows[:, 0] > rng.random(500)).astype(int), feature_name=inputs)
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 5)
    values = dict.fromkeys((f.name for f in FEATURES), 0.5) | dict.fromkeys(CONTEXT_FEATURES, 3)
    values |= dict.fromkeys(CATEGORICAL_FEATURES, "new")
    row = [float(v) if not isinstance(v, str) else np.nan for v in (values[n] for n in inputs)]
    p = float(booster.predict(np.array([row]))[0]) + (0.01 if tamper else 0.0)
    spec = {
        "inputs": inputs,
        "categories": {n: [] for n in CATEGORICAL_FEATURES},
        "calibration": {"kind": "identity"},
        "probe": [{"inputs": values, "p": p}],
    }
    run = ask("POST", "runs/create", experiment_id="0", start_time=0)["run"]["info"]
    folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/").strip("/") + "/ctr_model"
    for name, text in (("model.txt", booster.model_to_string()), ("spec.json", json.dumps(spec))):
        put = mlflow.put(f"/api/2.0/mlflow-artifacts/artifacts/{folder}/{name}", content=text.encode())
        put.raise_for_status()
    ask("POST", "registered-models/create", name=model_name)
    source = f"{run['artifact_uri']}/ctr_model"
    made = ask("POST", "model-versions/create", name=model_name, source=source, run_id=run["run_id"])
    version = made["model_version"]["version"]
    ask("POST", "registered-models/alias", name=model_name, alias="champion", version=version)
    return version
