"""The supervisor, with shell loops in place of services: order, restarts, outages, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from connectors.endpoints import Endpoints
from infra.local.component import Component, NotReady, UnknownComponent, with_needs
from infra.local.state import is_alive, load, wanted_path, write_json
from infra.local.supervisor import YIELDING_NICENESS, Supervisor, cut_log

PATIENCE_S = 20.0


def service(name: str, needs: tuple[str, ...] = (), script: str = "") -> Component:
    """A loop that notes its start and its end in `order`, and is ready when it has made its file."""

    def ready(where: Endpoints) -> None:
        if not (where.home / f"{name}.ready").exists():
            raise NotReady("no file yet")

    body = script or "while :; do sleep 0.05; done"
    text = (
        f"cd {{home}}; trap 'echo end {name} >> order; exit 0' TERM; echo start {name} >> order; "
        f"touch {name}.ready; {body}"
    )
    return Component(
        name=name,
        needs=needs,
        command=lambda where: ["/bin/sh", "-c", text.format(home=where.home)],
        prepare=lambda where: (where.home / f"{name}.ready").unlink(missing_ok=True),
        ready=ready,
        stop_timeout_s=2,
        ready_timeout_s=5,
    )


def step(name: str, script: str, needs: tuple[str, ...] = (), again_after: tuple[str, ...] = ()) -> Component:
    text = f"cd {{home}}; echo start {name} >> order; {script}"
    return Component(
        name=name,
        kind="step",
        needs=needs,
        again_after=again_after,
        command=lambda where: ["/bin/sh", "-c", text.format(home=where.home)],
        ready_timeout_s=5,
    )


class Running:
    """A supervisor at work, as a scenario sees it."""

    def __init__(self, where: Endpoints, components: tuple[Component, ...]) -> None:
        self.home = where.home
        self.supervisor = Supervisor(where, {c.name: c for c in components})
        self.want(*(c.name for c in components))

    def want(self, *names: str) -> None:
        write_json(wanted_path(self.home), list(names))

    def state(self, name: str) -> str:
        return self.supervisor.state.components[name].state

    def pid(self, name: str) -> int:
        pid = self.supervisor.state.components[name].pid
        assert pid is not None
        return pid

    def order(self) -> list[str]:
        return (self.home / "order").read_text().splitlines()

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.supervisor.state
            await asyncio.sleep(0.02)


def play(home: Path, components: tuple[Component, ...], scenario: Callable[[Running], Awaitable[None]]) -> Running:
    """Runs a supervisor, lets the scenario act on it, and stops it."""

    async def run() -> Running:
        running = Running(Endpoints(home=home), components)
        task = asyncio.create_task(running.supervisor.run())
        try:
            await running.until(lambda: set(running.supervisor.state.components) == {c.name for c in components})
            await scenario(running)
        finally:
            running.supervisor.stop()
            await task
        return running

    return asyncio.run(run())


def test_a_component_yields_as_it_says_with_all_that_it_starts(tmp_path: Path) -> None:
    own = os.nice(0)
    patient = replace(service("patient", script="sleep 30 & wait"), niceness=7)

    async def scenario(running: Running) -> None:
        await running.until(lambda: all(running.state(n) == "ready" for n in ("patient", "prompt")))
        process = psutil.Process(running.pid("patient"))
        await running.until(lambda: bool(process.children()))
        assert [p.nice() for p in (process, *process.children())] == [own + 7, own + 7]
        assert psutil.Process(running.pid("prompt")).nice() == own

    play(tmp_path, (patient, service("prompt")), scenario)


def test_threads_of_a_name_yield_to_the_others_of_their_process(tmp_path: Path) -> None:
    threads = "import threading, time; t = threading.Thread(target=time.sleep, args=(30,)); t.start()\n"
    named = threads + "open('/proc/self/task/%d/comm' % t.native_id, 'w').write('AsyncOperations'); t.join()"
    two = replace(service("two", script=f'exec {sys.executable} -c "{named}"'), yielding_threads=("AsyncOperations",))

    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("two") == "ready")
        pid = running.pid("two")
        await running.until(
            lambda: {os.getpriority(os.PRIO_PROCESS, t.id) for t in psutil.Process(pid).threads()} == wanted
        )
        assert os.getpriority(os.PRIO_PROCESS, pid) == own

    own = os.nice(0)
    wanted = {own, min(own + YIELDING_NICENESS, 19)}  # 19 is the nicest
    play(tmp_path, (two,), scenario)


def test_starts_after_needs_and_stops_in_reverse(tmp_path: Path) -> None:
    pids = []

    async def scenario(running: Running) -> None:
        await running.until(lambda: all(running.state(n) == "ready" for n in "abc"))
        pids.extend(running.pid(n) for n in "abc")
        saved = load(tmp_path)
        assert saved is not None and [saved.components[n].pid for n in "abc"] == pids

    running = play(tmp_path, (service("c", ("b",)), service("b", ("a",)), service("a")), scenario)
    assert running.order() == ["start a", "start b", "start c", "end c", "end b", "end a"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert {running.state(n) for n in "abc"} == {"stopped"}


def test_a_killed_service_is_started_again_and_its_dependants_run_on(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("b") == "ready")
        first, dependant = running.pid("a"), running.pid("b")
        os.kill(first, signal.SIGKILL)
        await running.until(lambda: running.supervisor.state.components["a"].restarts == 1)
        await running.until(lambda: running.state("a") == "ready")
        assert running.pid("a") != first
        assert running.pid("b") == dependant

    play(tmp_path, (service("a"), service("b", ("a",))), scenario)


def test_a_misconfigured_service_is_not_tried_again(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("a") == "failed")
        row = running.supervisor.state.components["a"]
        assert row.restarts == 0
        assert "exit code 2" in row.error

    broken = Component("a", command=lambda _: ["/bin/sh", "-c", "exit 2"], ready=_never)
    play(tmp_path, (broken, step("after", "true", needs=("a",))), scenario)
    assert not (tmp_path / "order").exists(), "what needs it must not start"


def test_a_wrong_declaration_fails_its_component_alone(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("a") == "failed" and running.state("b") == "ready")
        assert running.supervisor.state.components["a"].error == "KeyError: 'oops'"

    wrong = Component("a", command=lambda _: [{}["oops"]], ready=_never)
    play(tmp_path, (wrong, service("b")), scenario)


def test_a_service_that_never_answers_is_given_up_after_four_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.supervisor.FIRST_PAUSE_S", 0.01)

    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("a") == "failed")

    script = "cd {home}; echo start >> order; exit 1"
    broken = Component("a", command=lambda w: ["/bin/sh", "-c", script.format(home=w.home)], ready=_never)
    assert len(play(tmp_path, (broken,), scenario).order()) == 4


def test_a_step_runs_once_and_again_after_the_loss_of_its_service(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("jobs") == "done" and running.state("once") == "done")
        os.kill(running.pid("cluster"), signal.SIGKILL)
        await running.until(lambda: running.order().count("start jobs") == 2)
        await running.until(lambda: running.state("jobs") == "done")

    components = (
        service("cluster"),
        step("jobs", "true", needs=("cluster",), again_after=("cluster",)),
        step("once", "true", needs=("cluster",)),
    )
    running = play(tmp_path, components, scenario)
    assert running.order().count("start once") == 1


def test_a_step_runs_again_when_its_service_was_lost_while_it_ran(tmp_path: Path) -> None:
    """What the step did may be gone with the service: a job that was submitted a moment before the JobManager died."""

    async def scenario(running: Running) -> None:
        await running.until(lambda: (running.home / "order").exists() and "start jobs" in running.order())
        before = running.pid("cluster")
        os.kill(before, signal.SIGKILL)
        await running.until(lambda: running.state("cluster") == "ready" and running.pid("cluster") != before)
        (running.home / "go").touch()
        await running.until(lambda: running.order().count("start jobs") == 2)
        await running.until(lambda: running.state("jobs") == "done")

    components = (
        service("cluster"),
        step("jobs", "while ! test -e go; do sleep 0.05; done", needs=("cluster",), again_after=("cluster",)),
    )
    play(tmp_path, components, scenario)


def test_a_failing_step_is_tried_again(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("s") == "done")

    running = play(tmp_path, (step("s", "test -e tried || (touch tried && false)"),), scenario)
    assert running.order() == ["start s", "start s"]


def test_an_outage_of_one_component_leaves_the_others(tmp_path: Path) -> None:
    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("b") == "ready")
        dependant = running.pid("b")
        running.want("b")
        await running.supervisor.reconcile()
        assert running.state("a") == "stopped"
        assert is_alive(dependant, psutil.Process(dependant).create_time())
        running.want("b", "a")
        await running.supervisor.reconcile()
        await running.until(lambda: running.state("a") == "ready")
        assert running.pid("b") == dependant

    play(tmp_path, (service("a"), service("b", ("a",))), scenario)


def test_what_a_service_started_ends_with_it_even_if_it_will_not(tmp_path: Path) -> None:
    stubborn = service("a", script="trap '' TERM; sleep 1000 & echo $! > child; while :; do sleep 0.05; done")
    children = []

    async def scenario(running: Running) -> None:
        await running.until(lambda: running.state("a") == "ready" and (tmp_path / "child").exists())
        await running.until(lambda: bool((tmp_path / "child").read_text().strip()))
        children.append(int((tmp_path / "child").read_text()))
        assert psutil.pid_exists(children[0])

    play(tmp_path, (stubborn,), scenario)
    deadline = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(children[0]) and psutil.Process(children[0]).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does this on Linux alone")
def test_a_killed_supervisor_takes_its_services_along(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.test_local_supervisor import service, Running\n"
        "from connectors.endpoints import Endpoints\n"
        "from pathlib import Path\n"
        "asyncio.run(Running(Endpoints(home=Path(sys.argv[1])), (service('a'),)).supervisor.run())\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(root)], cwd=root)
    deadline = time.monotonic() + PATIENCE_S
    row = None
    while row is None or row.state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        saved = load(tmp_path)
        row = saved.components.get("a") if saved else None
    process.kill()
    process.wait()
    while is_alive(row.pid, row.created_s):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_logs_are_kept_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 100)
    cut_log(path, limit_bytes=100)
    assert path.stat().st_size == 100
    cut_log(path, limit_bytes=99)
    assert path.stat().st_size == 0
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100


def test_needs_come_first_and_circles_are_refused() -> None:
    a, b = step("a", "true", needs=("b",)), step("b", "true")
    assert with_needs({"a": a, "b": b}, ["a"]) == ["b", "a"]
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        with_needs({"a": a, "b": step("b", "true", needs=("a",))}, ["a"])
    with pytest.raises(UnknownComponent, match="no component 'c'; there are: a, b"):
        with_needs({"a": a, "b": b}, ["c"])


def _never(_: Endpoints) -> None:
    raise NotReady("never")
