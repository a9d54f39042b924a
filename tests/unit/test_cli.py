"""The `headwater` command: what it says and the exit codes it promises, without any service."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connectors.endpoints import PORT_OFFSETS, endpoints
from connectors.keys import PURPOSES, KeyRing
from infra.cli.app import app
from infra.cli.exits import guarded
from infra.local import control
from infra.local.component import Component
from infra.local.stack import COMPONENTS, DEFAULT, with_publishers
from infra.local.state import ComponentState, StackState, created_s, save
from schemas.errors import ConfigError, IncompatibleSchema, Unavailable
from schemas.ids import encode_id
from schemas.topics import AD_TELEMETRY
from tests.samples.ports import free_base

RUN = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own, on ports that nobody else uses at this moment."""
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADWATER_PORT_BASE", str(free_base()))
    endpoints.cache_clear()
    yield tmp_path / "home"
    endpoints.cache_clear()


def test_help_names_every_command_of_the_users() -> None:
    shown = RUN.invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for name in (
        "up",
        "down",
        "status",
        "logs",
        "doctor",
        "demo",
        "simulate",
        "replay",
        "dlq",
        "keys",
        "submit",
        "topics",
        "schemas",
    ):
        assert f" {name} " in shown


def test_help_is_quick() -> None:
    """No command's own imports at the start: measured in CPU time, which a busy machine does not stretch."""
    before = os.times().children_user
    subprocess.run([sys.executable, "-m", "infra.cli.app", "--help"], check=True, capture_output=True)
    assert os.times().children_user - before < 1.5


def test_status_of_nothing_is_a_failed_check() -> None:
    result = RUN.invoke(app, ["status"])
    assert result.exit_code == 1
    assert "not running" in result.output


def test_status_for_programs(home: Path) -> None:
    home.mkdir()
    me = StackState(os.getpid(), _created(), endpoints().port_base, 0, {"kafka": ComponentState("ready", port=1)})
    save(home, me)
    result = RUN.invoke(app, ["status", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["components"]["kafka"]["state"] == "ready"


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--only", "nope"],
        ["down", "--only", "nope"],
        ["logs", "nope"],
        ["down", "--only", "kafka", "--wipe"],
        ["up", "-x"],
        ["up", "--publishers", "5"],
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str]) -> None:
    assert RUN.invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("x"), 2), (Unavailable("x"), 3), (IncompatibleSchema("x"), 1), (KeyboardInterrupt(), 130)],
)
def test_errors_have_their_exit_codes(error: BaseException, code: int) -> None:
    import typer

    own = typer.Typer()

    @own.command()
    @guarded
    def broken() -> None:
        raise error

    assert RUN.invoke(own, []).exit_code == code


def test_down_of_nothing_is_fine() -> None:
    assert RUN.invoke(app, ["down"]).exit_code == 0


def test_a_folder_that_is_not_ours_is_not_wiped(home: Path) -> None:
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    assert RUN.invoke(app, ["down", "--wipe"]).exit_code == 2
    assert (home / "thesis.txt").exists()


def test_a_taken_port_is_refused_with_its_holder_and_a_way_out(home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", endpoints().port("kafka")))
        holder.listen()
        result = subprocess.run(
            [sys.executable, "-m", "infra.cli.app", "up", "--only", "kafka"], capture_output=True, text=True
        )
    assert result.returncode == 3
    assert f"port {endpoints().port('kafka')} (kafka) is held by" in result.stderr
    assert f"pid {os.getpid()}" in result.stderr
    assert "HEADWATER_PORT_BASE=" in result.stderr
    assert not (home / "state.json").exists(), "nothing may be started"


def test_leftovers_are_ended_by_identity_not_by_number_alone(home: Path) -> None:
    home.mkdir()
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        created = created_s(process.pid)
        assert created is not None
        gone = StackState(2**22 - 1, 0.0, 0, 0, {"a": ComponentState("ready", process.pid, created - 500)})
        save(home, gone)
        assert control.end_leftovers(endpoints()) == []
        assert process.poll() is None, "another process that was given the number"
        gone.components["a"].created_s = created
        save(home, gone)
        assert control.end_leftovers(endpoints()) == ["a"]
        assert process.wait(5) != 0
    finally:
        process.kill()


def test_keys_rotate_and_the_secrets_are_never_shown() -> None:
    from infra.cli.keys import app as keys

    assert json.loads(RUN.invoke(keys, ["list", "--json"]).output)["token"] == {"current": 1, "accepted": []}
    assert RUN.invoke(keys, ["rotate", "token"]).output == "token: key 2 is in use\n"
    assert "refused from now on: 1" in RUN.invoke(keys, ["rotate", "token"]).output
    listed = RUN.invoke(keys, ["list"]).output
    assert "token        3, still accepted: 2" in listed
    ring = KeyRing.load(endpoints().secrets)
    for purpose in PURPOSES:
        assert encode_id(ring.current(purpose).secret) not in listed
    assert RUN.invoke(keys, ["rotate", "tokens"]).exit_code == 2


def test_more_publishers_start_when_they_are_asked_for() -> None:
    assert "publisher" in DEFAULT and "publisher-2" not in DEFAULT
    assert with_publishers(DEFAULT, 3) == [*DEFAULT, "publisher-2", "publisher-3"]
    assert set(with_publishers(COMPONENTS, AD_TELEMETRY.partitions)) == COMPONENTS.keys()
    workers = [COMPONENTS[name].environment(endpoints()).get("HEADWATER_PUBLISHER_WORKER") for name in COMPONENTS]
    assert sorted(worker for worker in workers if worker) == ["1", "2", "3"]


def test_every_declared_port_is_known_and_used_once() -> None:
    ports = [port for component in COMPONENTS.values() for port in component.ports]
    assert len(ports) == len(set(ports))
    assert set(ports) == PORT_OFFSETS.keys()


def test_components_need_only_what_exists() -> None:
    for component in COMPONENTS.values():
        assert {*component.needs, *component.again_after} <= COMPONENTS.keys()


def test_a_service_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="readiness"):
        Component("a", command=lambda _: [])


def test_follow_shows_new_lines_after_the_log_was_cut(home: Path) -> None:
    (home / "logs").mkdir(parents=True)
    path = home / "logs" / "kafka.log"
    path.write_text("old line\n" * 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.cli.app", "logs", "kafka", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "old line\n"
    time.sleep(0.5)
    path.write_text("new line\n")
    assert process.stdout.readline() == "new line\n"
    process.terminate()
    assert process.wait(5) == 130


def _created() -> float:
    created = created_s(os.getpid())
    assert created is not None
    return created
