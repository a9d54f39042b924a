"""Files that the server follows: a text that can't be used changes nothing, whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.catalog import load_bidders
from serving.adserver.dsps.bidders import Bidders, call_rules
from serving.adserver.files import FileWatch
from serving.adserver.settings import Settings

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
