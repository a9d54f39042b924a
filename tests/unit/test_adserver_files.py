"""Files of the ad server: read again while requests are answered, and refused as a whole, whatever is wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.catalog_text import catalog_in_steps, dump, load_bidders, load_catalog
from schemas.errors import ConfigError
from serving.adserver.auction.entrants import Entrants
from serving.adserver.dsps.bidders import Bidders, call_rules
from serving.adserver.files import FileWatch
from serving.adserver.inventory import Inventory
from serving.adserver.settings import Settings
from serving.adserver.targeting import Audience
from tests.samples.adserver import catalog

ADS = [{"id": str(i), "pricing": "cpm", "bid_micros": 1_000_000} for i in range(20)]


def test_requests_are_answered_while_a_long_file_is_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text("{}")
    turns: list[int] = []

    def use(_text: str) -> Iterator[None]:
        for _ in range(10):
            time.sleep(0.002)
            yield
        turns.append(-1)

    async def run() -> None:
        watch = FileWatch(path, use)
        looking = asyncio.create_task(watch.look_in_slices())
        while not looking.done():
            turns.append(len(turns))
            await asyncio.sleep(0)
        assert watch.problem is None

    asyncio.run(run())
    assert turns.index(-1) >= 5, "the loop went round between the steps"


def test_an_older_text_never_comes_behind_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "changes.json"
    path.write_text("long" * 10)
    used: list[str] = []

    def use(text: str) -> Iterator[None]:
        for _ in text:
            time.sleep(0.002)
            yield
        used.append(text)

    async def run() -> None:
        watch = FileWatch(path, use)
        first = asyncio.create_task(watch.look_in_slices())
        await asyncio.sleep(0.01)
        path.write_text("new")
        await asyncio.gather(first, watch.look_in_slices())

    asyncio.run(run())
    assert used == ["long" * 10, "new"]


def test_a_file_that_is_refused_half_way_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{}")

    def use(_text: str) -> Iterator[None]:
        yield
        raise ConfigError("no such campaign")

    watch = FileWatch(path, use)
    asyncio.run(watch.look_in_slices())
    assert watch.problem == "no such campaign"


def test_a_catalogue_in_steps_is_the_same_catalogue() -> None:
    whole = catalog(ADS)
    steps = catalog_in_steps(json.loads(dump(whole)))
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value == whole == load_catalog(dump(whole))
            break
        count += 1
    assert count > len(ADS) * 3, "a pause behind each campaign, line item and creative"
    inventory = Inventory.in_steps(whole)
    assert sum(1 for _ in inventory) > len(ADS)


def test_every_problem_is_told_wherever_it_is() -> None:
    data = json.loads(dump(catalog(ADS[:1])))
    data["creatives"][0]["nonsense"] = 1
    data["campaigns"].append("none")
    data["surprise"] = []
    data["version"] = "one"
    with pytest.raises(ConfigError) as refused:
        load_catalog(json.dumps(data))
    for problem in (
        "$.creatives[0].nonsense: unknown field",
        "$.campaigns[1]: expected an object",
        "$.surprise: unknown field",
        "$.version: expected int, got str",
    ):
        assert str(refused.value).count(problem) == 1, problem


def test_an_inventory_that_was_replaced_is_gone_at_once() -> None:
    inventory = Inventory(catalog(ADS))
    inventory.targeted("video", inventory.audience(Audience()))
    inventory.entrants_of(b"shape", Entrants)
    gone = [weakref.ref(inventory), weakref.ref(inventory._index)]
    gc.disable()
    try:
        del inventory
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


_GOOD = "https://dsp.test/bid"


@pytest.mark.parametrize(
    "endpoint",
    ["https://d\u00e9.test/bid", "https://dsp.test/?x=\u00e9", "https://[oops/", "https://a:99999/", "ftp://a"],
)
def test_an_endpoint_that_can_not_be_called_is_a_problem_of_the_file(endpoint: str, tmp_path: Path) -> None:
    bidders, path = Bidders(call_rules(Settings(), 1)), tmp_path / "bidders.json"
    watch = FileWatch(path, lambda text: bidders.replace(load_bidders(text).bidders))
    path.write_text(json.dumps({"bidders": [{"id": "good", "endpoint": _GOOD}]}))
    watch.look()
    assert watch.problem is None
    path.write_text(json.dumps({"bidders": [{"id": "good", "endpoint": _GOOD}, {"id": "bad", "endpoint": endpoint}]}))
    watch.look()
    assert watch.problem
    assert list(bidders.desks) == ["good"]
