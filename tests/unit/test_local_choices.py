"""Choices that come from the environment: what is not one of them is refused before anything starts."""

from __future__ import annotations

import pytest

from connectors.endpoints import endpoints
from infra.local import flink, platform
from infra.local.component import Component
from schemas.errors import ConfigError


def prepare(component: Component) -> None:
    assert component.prepare is not None
    component.prepare(endpoints())


def test_valkeys_file_is_not_synced_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "VALKEY_SYNC", "everysec")
    with pytest.raises(ConfigError, match="no or always, not 'everysec'"):
        prepare(platform.VALKEY)


def test_a_collector_is_one_of_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flink, "COLLECTOR", "zgc")
    with pytest.raises(ConfigError, match="parallel or g1, not 'zgc'"):
        prepare(flink.JOBMANAGER)


@pytest.mark.parametrize(("name", "flag"), [("parallel", "-XX:+UseParallelGC"), ("g1", "-XX:+UseG1GC")])
def test_the_taskmanager_has_one_collector(monkeypatch: pytest.MonkeyPatch, name: str, flag: str) -> None:
    monkeypatch.setattr(flink, "COLLECTOR", name)
    command = flink.TASKMANAGER.command(endpoints())
    assert [part for part in command if part.startswith("-XX:+Use")] == [flag]
