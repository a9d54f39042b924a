"""`headwater serve adserver` for somebody who has two files and nothing else: processes, hostile DSPs, stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from connectors.endpoints import PORT_OFFSETS
from schemas.decisions import Degraded
from tests.contract.test_adserver_bidders import HOSTILE, Behaviour, _response
from tests.samples.ports import free_base

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
CATALOG = {
    "advertisers": [{"id": "a", "name": "A", "domain": "a.example"}],
    "campaigns": [{"id": "c", "advertiser_id": "a", "name": "C", "daily_budget_micros": 5_000}],
    "line_items": [{"id": "l", "campaign_id": "c", "pricing": "cpm", "bid_micros": 2_000_000}],
    "creatives": [
        {
            "id": "cr",
            "line_item_id": "l",
            "format": "video",
            "landing_url": "https://a.example",
            "duration_s": 15,
            "media_url": "https://media.example/a.mp4",
            "mime": "video/mp4",
        }
    ],
}
REQUEST = {"imp": [{"id": "1", "video": {"mimes": ["video/mp4"]}}], "at": 1}


class DspThread:
    """DSPs with behaviours, in an event loop of their own."""

    def __init__(self, behaviours: dict[str, Behaviour]) -> None:
        self.urls: dict[str, str] = {}
        self._behaviours = behaviours
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self) -> None:
        for name, behaviour in self._behaviours.items():
            server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
            self.urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/bid"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Alone:
    """The running command."""

    def __init__(self, home: Path, port: int, catalog: Any = None, bidders: Any = None, workers: int = 1) -> None:
        arguments = ["--port", str(port), "--workers", str(workers)]
        for name, content in (("catalog", catalog), ("bidders", bidders)):
            if content is not None:
                path = home / f"given-{name}.json"
                path.write_text(json.dumps(content))
                arguments += [f"--{name}", str(path)]
        # a machine that runs tests is slower than one that serves
        own = {"HEADWATER_HOME": str(home), "HEADWATER_ADSERVER_STORE_TIMEOUT_MS": "1000"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli.app", "serve", "adserver", *arguments],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != "HEADWATER_VALKEY_URL"} | own,
            stderr=(home / "stderr").open("wb"),
        )
        self._said = home / "stderr"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        try:
            self.eventually(lambda: self.http.get("/status").status_code == 200)
        except BaseException:
            self.stop()
            raise

    def eventually(self, ask: Callable[[], bool]) -> None:
        ends_s = time.monotonic() + START_S
        while True:
            try:
                if ask():
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None and time.monotonic() < ends_s, self._said.read_text()[-4_000:]
            time.sleep(0.1)

    def auction(self, request_id: str, tmax_ms: int = 1_000) -> httpx.Response:
        return self.http.post("/openrtb2/auction", json=REQUEST | {"id": request_id, "tmax": tmax_ms})

    def workers(self) -> list[psutil.Process]:
        (server,) = [p for p in psutil.Process(self.process.pid).children() if "serving.adserver" in p.cmdline()]
        return server.children()

    def stop(self) -> list[psutil.Process]:
        """Ends it as a terminal's Ctrl-C would; gives back what of it is left."""
        family = [] if self.process.poll() is not None else psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.http.close()
        return [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def port() -> int:
    return free_base() + PORT_OFFSETS["adserver"]


def _good(price: float) -> Behaviour:
    """A DSP that bids for whatever it is asked for."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                bid = {"id": "b", "impid": "1", "price": price, "crid": "x", "adomain": ["x.example"], "mtype": 2}
                bid["adm"] = (
                    "<VAST version='4.0'><Ad id='1'><InLine><Creatives><Creative><Linear><MediaFiles/></Linear>"
                )
                bid["adm"] += "</Creative></Creatives></InLine></Ad></VAST>"
                writer.write(_response(json.dumps({"id": asked["id"], "seatbid": [{"bid": [bid]}]}).encode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    return behave


def test_two_processes_spend_one_budget_and_survive_one_of_them(tmp_path: Path, port: int) -> None:
    server = Alone(tmp_path, port, catalog=CATALOG, workers=2)
    try:
        server.eventually(lambda: len(server.workers()) == 2)
        answers = []
        for i in range(6):
            with httpx.Client(base_url=server.http.base_url) as other:  # another connection may be another process
                answers.append(other.post("/openrtb2/auction", json=REQUEST | {"id": f"r{i}", "tmax": 1000}))
        assert [a.status_code for a in answers] == [200, 200, 204, 204, 204, 204]  # 2 x 2,000 of 5,000 micros
        reasons = [{int(r) for r in answers[i].headers["x-headwater-reason"].split(",")} for i in (0, -1)]
        assert reasons[0] == {Degraded.MODEL_UNAVAILABLE, Degraded.DECISION_LOG_UNAVAILABLE}
        assert reasons[1] == {Degraded.NO_CANDIDATE, Degraded.DECISION_LOG_UNAVAILABLE}
        text = server.http.get("/metrics").text
        assert 'adserver_requests_total{door="auction",status="200"} 2' in text.splitlines()
        victim = server.workers()[0]
        victim.kill()
        server.eventually(lambda: victim.pid not in {p.pid for p in server.workers()} and len(server.workers()) == 2)
        server.http.close()
        server.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        assert server.auction("after").status_code == 204
    finally:
        assert server.stop() == []
    assert server.process.returncode in (0, 130)


def _worker_of(client: httpx.Client) -> int:
    return int(client.get("/status").json()["worker"])


def test_kept_connections_are_spread_and_a_process_that_stands_still_takes_none(tmp_path: Path, port: int) -> None:
    server = Alone(tmp_path, port, catalog=CATALOG, workers=2)
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as kept:
        try:
            server.eventually(lambda: len(server.workers()) == 2)
            taken = [_worker_of(kept.enter_context(httpx.Client(base_url=url, timeout=10))) for _ in range(15)]
            shares = Counter([*taken, _worker_of(server.http)])
            assert sorted(shares.values()) == [8, 8], shares
            still = server.workers()[0]
            still.suspend()
            try:
                others = {_worker_of(kept.enter_context(httpx.Client(base_url=url, timeout=10))) for _ in range(6)}
                assert len(others) == 1
            finally:
                still.resume()
        finally:
            assert server.stop() == []


def test_files_read_again_and_a_drain_cost_no_request_that_was_begun(tmp_path: Path, port: int) -> None:
    house = CATALOG | {"line_items": [{"id": "l", "campaign_id": "c", "pricing": "house", "bid_micros": 0}]}
    server = Alone(tmp_path, port, catalog=house, workers=2)
    begun: list[tuple[float, int | str, set[str]]] = []  # when, what came, creatives
    ended = threading.Event()

    def ask_on() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            while not ended.is_set():
                began_s = time.monotonic()
                try:
                    answer = client.post("/openrtb2/auction", json=REQUEST | {"tmax": 1_000, "id": str(began_s)})
                    bids = answer.json()["seatbid"][0]["bid"] if answer.status_code == 200 else []
                    begun.append((began_s, answer.status_code, {bid["crid"] for bid in bids}))
                except httpx.HTTPError as e:
                    begun.append((began_s, type(e).__name__, set()))
                    time.sleep(0.05)

    players = [threading.Thread(target=ask_on) for _ in range(6)]
    server.eventually(lambda: len(server.workers()) == 2)
    (supervisor,) = [p for p in psutil.Process(server.process.pid).children() if "serving.adserver" in p.cmdline()]
    for player in players:
        player.start()
    time.sleep(1.0)
    other = house | {"creatives": [CATALOG["creatives"][0] | {"id": "other"}]}  # type: ignore[index]
    (tmp_path / "given-catalog.json").write_text(json.dumps(other))
    supervisor.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    terminated_s = time.monotonic()
    assert server.stop() == []
    ended.set()
    for player in players:
        player.join(30)
    served = [row for row in begun if row[0] < terminated_s]
    assert len(served) > 50 and {what for _, what, _ in served} == {200}
    assert set().union(*(creatives for *_, creatives in served)) == {"cr", "other"}
    assert served[-1][2] == {"other"}, "read again without a restart"


@pytest.fixture
def dsps() -> Iterator[DspThread]:
    made = DspThread({"good": _good(3.5), "other": _good(2.5)} | {name: b for name, (b, _) in HOSTILE.items()})
    yield made
    made.close()


def test_hostile_dsps_change_nobody_elses_result(tmp_path: Path, port: int, dsps: DspThread) -> None:
    calm = {"bidders": [{"id": n, "endpoint": dsps.urls[n]} for n in ("good", "other")]}
    patience_ms = {"good": 2_000, "other": 2_000}  # of a busy machine; nobody waits that long for the others
    rough = {
        "bidders": [{"id": n, "endpoint": url, "timeout_ms": patience_ms.get(n, 100)} for n, url in dsps.urls.items()]
    }
    server = Alone(tmp_path, port, bidders=calm)
    try:
        won: dict[str, set[tuple[float, str]]] = {"calm": set(), "rough": set()}
        for name, rows in (("calm", calm), ("rough", rough)):
            (tmp_path / "given-bidders.json").write_text(json.dumps(rows))
            count = len(rows["bidders"])
            server.eventually(lambda count=count: server.http.get("/status").json()["bidders"] == count)  # type: ignore[misc]
            for i in range(10):
                answer = server.auction(f"{name}-{i}", tmax_ms=2_500)
                assert answer.status_code == 200, answer.headers
                (bid,) = answer.json()["seatbid"][0]["bid"]
                won[name].add((bid["price"], bid["adomain"][0]))
        assert won["calm"] == won["rough"] == {(3.5, "x.example")}
    finally:
        assert server.stop() == []


def test_a_valkey_that_stands_still_costs_no_answer(tmp_path: Path, port: int, dsps: DspThread) -> None:
    house = CATALOG | {"line_items": [{"id": "l", "campaign_id": "c", "pricing": "house", "bid_micros": 0}]}
    bidders = {"bidders": [{"id": "good", "endpoint": dsps.urls["good"]}]}
    server = Alone(tmp_path, port, catalog=house, bidders=bidders)
    try:
        assert server.auction("before").json()["seatbid"][0]["bid"][0]["price"] == 3.5
        (valkey,) = [p for p in psutil.Process(server.process.pid).children() if "valkey" in " ".join(p.cmdline())]
        valkey.suspend()
        try:
            answer = server.auction("meanwhile", tmax_ms=700)
            assert answer.status_code == 200 and answer.elapsed.total_seconds() < 2
            (bid,) = answer.json()["seatbid"][0]["bid"]
            assert bid["crid"] == "cr" and "/t/" not in bid["adm"]
            reasons = {int(r) for r in answer.headers["x-headwater-reason"].split(",")}
            assert {Degraded.HOUSE_AD, Degraded.REGISTRY_UNAVAILABLE} <= reasons
        finally:
            valkey.resume()
        server.eventually(lambda: server.auction("after").json()["seatbid"][0]["bid"][0]["price"] == 3.5)
    finally:
        assert server.stop() == []


def test_files_that_are_wrong_end_the_command_in_words(tmp_path: Path) -> None:
    path = tmp_path / "bidders.json"
    path.write_text('{"bidders": [{"id": 5}]}')
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.app", "serve", "adserver", "--bidders", str(path)],
        cwd=ROOT,
        env=os.environ | {"HEADWATER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "$.bidders[0].endpoint: missing" in done.stderr
