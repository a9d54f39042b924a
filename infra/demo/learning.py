"""The learning half of the demo: lake to features to model, and the ad server's change to the new champion."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from connectors.endpoints import Endpoints
from connectors.jars import project_root
from infra.demo.drain import drain_lake, lake_url
from schemas.errors import HeadwaterError, TimedOut, Unavailable

_POLL_S = 0.5

Say = Callable[[str], None]


class StepFailed(HeadwaterError):
    """A command of the demo ended with an error; the message holds the end of what it said."""


def run_module(module: str, *arguments: str, say: Say = lambda line: None, timeout_s: float = 300.0) -> None:
    """Runs `python -m module` and passes its lines on. Blocks. Errors: StepFailed with its last lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=project_root(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last: list[str] = []
    deadline_s = time.monotonic() + timeout_s
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last = [*last[-30:], line.rstrip()]
            say(line.rstrip())
            if time.monotonic() > deadline_s:
                raise StepFailed(f"{module} did not end within {timeout_s:g} s")
        if process.wait() != 0:
            raise StepFailed(f"{module} ended with {process.returncode}:\n" + "\n".join(last))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def model_version(ends: Endpoints) -> str | None:
    """The model that the ad server scores with now, None before the first. Errors: Unavailable."""
    try:
        answer = httpx.get(f"{ends.adserver_url}/status", timeout=5.0)
        answer.raise_for_status()
        return answer.json().get("model_version")
    except httpx.HTTPError as error:
        raise Unavailable(f"ad server: {error}") from error


def await_model(ends: Endpoints, before: str | None, timeout_s: float = 30.0) -> str:
    """The ad server's model once it is another than `before`. Blocks. Errors: TimedOut."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        version = model_version(ends)
        if version is not None and version != before:
            return version
        if time.monotonic() > deadline_s:
            raise TimedOut(f"the ad server still uses {before or 'no model'} after {timeout_s:g} s")
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Training:
    """What a training came to: normalised entropy before and after on the same held-out ads; smaller is better."""

    version: str
    promoted: bool
    words: str
    against: str
    before: float
    after: float
    held_out_ads: int
    held_out_clicks: int


def train(ends: Endpoints, say: Say) -> Training:
    """Lake drained, features made, a model trained and judged. Blocks. Errors: StepFailed, TimedOut, Unavailable."""
    report = ends.home / "demo-training.json"
    drain_lake(lake_url(ends), timeout_s=120.0)
    run_module("jobs.batch", "run", say=say)
    run_module("jobs.models", "train", "--report", str(report), say=say)
    outcome = json.loads(report.read_text())
    return Training(
        version=str(outcome["version"]),
        promoted=bool(outcome["promoted"]),
        words=str(outcome["words"]),
        against=str(outcome["against"]),
        before=float(outcome["before"]),
        after=float(outcome["after"]),
        held_out_ads=int(outcome["ads"]["held_out"]),
        held_out_clicks=int(outcome["clicks"]["held_out"]),
    )
