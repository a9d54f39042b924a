"""A real log's form through everything real: exact totals, malformed lines named, a second replay adds nothing."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from connectors.endpoints import Endpoints
from infra.replay import cli
from infra.replay.logs import IPINYOU_CLICK, IPINYOU_IMPRESSION, TALKINGDATA_CLICK
from infra.replay.truth import read_truth

pytestmark = pytest.mark.stack


def _ipinyou(bid_id: str, second: int, price: str, kind: str = "1") -> str:
    time = f"20131021{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}{second % 1000:03d}"
    columns = [
        bid_id,
        time,
        kind,
        f"USER{second % 40}",
        "Mozilla/5.0 (Windows NT 6.1)",
        f"10.0.{second % 9}.*",
    ]
    columns += ["1", "2", "3", "5f4dcc3b5aa765d61d8327deb882cf99", "0cc175b9c0f1b6a831c399e269772661", "null"]
    columns += [
        f"slot-{second % 5}",
        "300",
        "250",
        "FirstView",
        "Na",
        "0",
        "10722",
        "294",
        price,
        "null",
        "2821",
    ]
    return "\t".join([*columns, "10063,10006"])


def _files(folder: Path) -> list[tuple[Path, cli.LogFormat]]:
    rng = random.Random(11)
    shown = [_ipinyou(f"{n:032x}", rng.randrange(3600), str(rng.randrange(1, 300))) for n in range(400)]
    shown.append(_ipinyou(f"{1:032x}", 3599, "77"))  # a bid logged again at another time
    shown.append(shown[5])  # the same line again
    shown[100:100] = ["too\tfew\tcolumns", _ipinyou("f" * 32, 10, "free"), "\x00\x01"]
    clicked = [_ipinyou(f"{n:032x}", 3600 + n, "10", "2") for n in (1, 2, 3)]
    clicked += [_ipinyou(f"{n:032x}", 3700 + n % 9, "10", "2") for n in range(9_000, 9_040)]
    clicked.append("\t".join(["x"] * 24))
    impressions, clicks = folder / "impressions.tsv.gz", folder / "clicks.tsv"
    impressions.write_bytes(gzip.compress("\n".join(shown).encode()))
    clicks.write_text("\n".join(clicked) + "\n")
    return [(impressions, IPINYOU_IMPRESSION), (clicks, IPINYOU_CLICK)]


def test_ipinyou_lines_come_out_exactly(stack: Endpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = _files(tmp_path)
    truth = read_truth(sources)
    assert (truth.impressions, truth.clicks, truth.clicks_without_impression) == (401, 43, 40)
    assert len(truth.malformed) == 4 and truth.duplicates == 1
    assert cli.replay(stack, sources, speed_up=720.0) == 0, capsys.readouterr().out
    # the same again: known files, nothing is counted twice
    assert cli.replay(stack, sources, speed_up=7200.0) == 0, capsys.readouterr().out


def test_talkingdata_clicks_and_installs_come_out_exactly(
    stack: Endpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["ip,app,device,os,channel,click_time,attributed_time,is_attributed"]
    for n in range(300):
        installed = n % 50 == 0
        time = f"2017-11-07 {9 + n // 60}:{n % 60:02d}"
        lines.append(f"{n % 20},{n % 7},1,13,{n % 5},{time},{'2017-11-07 23:00' if installed else ''},{int(installed)}")
    lines[40] = lines[41]  # identical lines are two clicks
    lines.insert(10, "1,2,3")
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(lines) + "\n")
    truth = read_truth([(path, TALKINGDATA_CLICK)])
    assert truth.clicks == 300 and truth.conversions == 6 and truth.malformed == {"clicks.csv:11"}
    assert cli.replay(stack, [(path, TALKINGDATA_CLICK)], speed_up=3600.0) == 0, capsys.readouterr().out
