"""Starts the wanted components as soon as what they need is ready, keeps them running, and stops them in reverse order.

Run: `python -m infra.local.supervisor` (the commands `headwater up` and `down` do it, detached from the terminal).
Signals: HUP reads `wanted.json` again; TERM or INT stops everything and ends.
A component that dies is started again after a pause that doubles up to 30 s. If the supervisor itself is killed, the
kernel ends its children (PR_SET_PDEATHSIG), so nothing is left behind either way.
Logs: `<home>/logs/<component>.log`, cut at 16 MiB with one older file kept beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from connectors.endpoints import Endpoints, endpoints
from connectors.jars import project_root
from infra.local.component import Component, NotReady, with_needs
from infra.local.state import ComponentState, StackState, created_s, save, wanted
from schemas.errors import HeadwaterError

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.2
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_AFTER_S = 60.0
#: A component that never became ready is given up after so many starts, or at once if it calls itself misconfigured.
STARTS_BEFORE_FAILED = 4
EXIT_MISCONFIGURED = 2
LOG_LIMIT_BYTES = 16 << 20
LOG_CHECK_INTERVAL_S = 5.0
THREAD_CHECK_INTERVAL_S = 2.0
#: By how much a thread that yields to the other ones of its process is nicer than they are: a tenth of their share.
YIELDING_NICENESS = 10
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class AlreadyRunning(RuntimeError):
    """Another supervisor holds this home."""


def _begin(niceness: int) -> None:
    """Runs in the child before exec: a killed supervisor takes its children with it; each yields as it should."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(niceness)


def yield_threads(pid: int, names: Collection[str]) -> None:
    """Lets the threads of a process that are called so yield to its others."""
    with contextlib.suppress(OSError):  # it has ended, or this is no Linux
        niceness = os.getpriority(os.PRIO_PROCESS, pid) + YIELDING_NICENESS
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if (task / "comm").read_text().rstrip("\n") in names:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def cut_log(path: Path, limit_bytes: int) -> None:
    """Moves a log that is over its limit into `<name>.log.1` and leaves it empty.

    Components write in append mode, so they need not reopen the file. What is written between the copy and the cut
    is lost: the price of logs that need no reader while they are written.
    """
    if path.stat().st_size > limit_bytes:
        shutil.copyfile(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)


class Supervisor:
    """One home's components and their processes. All methods run on one event loop."""

    def __init__(self, where: Endpoints, components: Mapping[str, Component]):
        self._where = where
        self._components = components
        self._logs = where.home / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._settled = {name: asyncio.Event() for name in components}
        self._losses = dict.fromkeys(components, 0)
        self._loss = asyncio.Condition()
        self._over = asyncio.Event()
        self._reconciling = asyncio.Lock()
        self.state = StackState(os.getpid(), created_s(os.getpid()) or 0.0, where.port_base, _now_ms())

    async def run(self) -> None:
        """Works until TERM, INT or `stop`, then stops everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        background: set[asyncio.Task[None]] = set()

        def reread() -> None:
            task = asyncio.create_task(self.reconcile())
            background.add(task)
            task.add_done_callback(background.discard)

        loop.add_signal_handler(signal.SIGHUP, reread)
        chores = [asyncio.create_task(chore) for chore in (self._rotate_logs(), self._yield_threads())]
        await self.reconcile()
        await self._over.wait()
        for chore in chores:
            chore.cancel()
        async with self._reconciling:
            await self._stop(list(self._tasks))

    def stop(self) -> None:
        """Lets `run` stop everything and end."""
        self._over.set()

    async def reconcile(self) -> None:
        """Makes what runs equal to `wanted.json`: starts what is new or had failed, stops what is no longer wanted."""
        async with self._reconciling:
            names = [name for name in wanted(self._where.home) if name in self._components]
            await self._stop([name for name in self._tasks if name not in names])
            for name in names:
                if name not in self._tasks or self._tasks[name].done():
                    if self.state.components.get(name, ComponentState()).state == "done":
                        continue
                    self._settled[name].clear()
                    port = self._components[name].ports
                    self.state.components[name] = ComponentState(port=self._where.port(port[0]) if port else None)
                    self._tasks[name] = asyncio.create_task(self._keep_bounded(self._components[name]))
            self._save()

    def _set(self, name: str, state: str, error: str | None = None) -> None:
        row = self.state.components[name]
        row.state = state
        if error is not None:
            row.error = error
        self._save()

    def _save(self) -> None:
        save(self._where.home, self.state)

    async def _needs_settled(self, component: Component) -> None:
        for name in component.needs:
            if name in self._tasks:
                await self._settled[name].wait()

    async def _keep_bounded(self, component: Component) -> None:
        """`_keep`, whose own failure (a bug in a declaration) fails that component and nothing else."""
        try:
            await self._keep(component)
        except Exception as error:  # the boundary between components
            log.exception("component failed", extra={"component": component.name})
            self._settled[component.name].clear()
            self._set(component.name, "failed", f"{type(error).__name__}: {error}")

    async def _keep(self, component: Component) -> None:
        """One component's life: wait for its needs, start, watch, start again."""
        pause_s, starts, was_ready = FIRST_PAUSE_S, 0, False
        while True:
            self._set(component.name, "waiting")
            await self._needs_settled(component)
            began = time.monotonic()
            losses = self._losses_before(component)
            starts += 1
            try:
                await self._start(component)
                if component.kind == "step":
                    await self._finish_step(component)
                    if not component.again_after:
                        return
                    await self._any_lost_since(losses, component)
                    self._settled[component.name].clear()
                    pause_s, starts, was_ready = FIRST_PAUSE_S, 0, False
                    continue
                await self._await_ready(component)
                was_ready = True
                code = await self._processes[component.name].wait()
                reason = f"ended with exit code {code}"
                if time.monotonic() - began > STABLE_AFTER_S:
                    pause_s = FIRST_PAUSE_S
            except (NotReady, OSError, RuntimeError, HeadwaterError) as error:
                reason = str(error)
            self._settled[component.name].clear()
            await self._note_loss(component)
            ended = await self._end(component, gently=False)
            row = self.state.components[component.name]
            row.pid = row.created_s = row.ready_ms = None
            log.warning("component down", extra={"component": component.name, "reason": reason})
            if not was_ready and (starts >= STARTS_BEFORE_FAILED or ended == EXIT_MISCONFIGURED):
                self._set(component.name, "failed", reason)
                return
            row.restarts += 1
            self._set(component.name, "backing-off", reason)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _start(self, component: Component) -> None:
        row = self.state.components[component.name]
        row.started_ms = _now_ms()
        self._set(component.name, "starting")
        if component.prepare:
            await asyncio.to_thread(component.prepare, self._where)
        environment = {
            **os.environ,
            "HEADWATER_HOME": str(self._where.home),
            "HEADWATER_PORT_BASE": str(self._where.port_base),
            "PYTHONUNBUFFERED": "1",
            **component.environment(self._where),
        }
        with (self._logs / f"{component.name}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *component.command(self._where),
                env=environment,
                cwd=project_root(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_begin, component.niceness),
            )
        self._processes[component.name] = process
        row.pid, row.created_s = process.pid, created_s(process.pid)
        self._save()

    async def _await_ready(self, component: Component) -> None:
        process = self._processes[component.name]
        deadline = time.monotonic() + component.ready_timeout_s
        assert component.ready is not None
        while True:
            try:
                await asyncio.to_thread(component.ready, self._where)
                break
            except (NotReady, OSError) as error:
                if time.monotonic() > deadline:
                    raise NotReady(f"not ready after {component.ready_timeout_s:.0f} s: {error}") from None
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(asyncio.shield(process.wait()), CHECK_INTERVAL_S)
                raise RuntimeError(f"ended with exit code {code} before it was ready")
        if process.returncode is not None:  # something else answered on its port
            raise RuntimeError(f"ended with exit code {process.returncode}")
        self.state.components[component.name].ready_ms = _now_ms()
        self._set(component.name, "ready", "")
        self._settled[component.name].set()

    async def _finish_step(self, component: Component) -> None:
        try:
            code = await asyncio.wait_for(self._processes[component.name].wait(), component.ready_timeout_s)
        except TimeoutError:
            raise RuntimeError(f"not done after {component.ready_timeout_s:.0f} s") from None
        if code:
            raise RuntimeError(f"ended with exit code {code}")
        row = self.state.components[component.name]
        row.pid = row.created_s = None
        row.ready_ms = _now_ms()
        self._set(component.name, "done", "")
        self._settled[component.name].set()

    def _losses_before(self, step: Component) -> list[int]:
        """How often each service that a step runs again after has been lost so far."""
        return [self._losses[name] for name in step.again_after]

    async def _any_lost_since(self, losses: list[int], step: Component) -> None:
        """Returns when one of them was lost since the step began: it may have been lost while the step ran."""
        async with self._loss:
            await self._loss.wait_for(lambda: self._losses_before(step) != losses)

    async def _note_loss(self, component: Component) -> None:
        async with self._loss:
            self._losses[component.name] += 1
            self._loss.notify_all()

    async def _end(self, component: Component, *, gently: bool) -> int | None:
        """Ends a component's process and whatever it left in its session; gives back the exit code, if any."""
        process = self._processes.pop(component.name, None)
        if process is None:
            return None
        if process.returncode is None and gently:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(component.stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), component.stop_timeout_s)
        _signal_group(process.pid, signal.SIGKILL)
        return await process.wait()

    async def _stop(self, names: list[str]) -> None:
        """Stops components, each after those that need it."""
        done = {name: asyncio.Event() for name in names}

        async def stop(name: str) -> None:
            for other in names:
                if name in self._components[other].needs:
                    await done[other].wait()
            task = self._tasks.pop(name)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._settled[name].clear()
            self._set(name, "stopping")
            await self._end(self._components[name], gently=True)
            self.state.components[name] = ComponentState(state="stopped")
            self._save()
            done[name].set()

        await asyncio.gather(*(stop(name) for name in with_needs(self._components, names) if name in done))

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for path in self._logs.glob("*.log"):
                with contextlib.suppress(FileNotFoundError):
                    await asyncio.to_thread(cut_log, path, LOG_LIMIT_BYTES)

    async def _yield_threads(self) -> None:
        while True:
            await asyncio.sleep(THREAD_CHECK_INTERVAL_S)
            for name, process in self._processes.items():
                if names := self._components[name].yielding_threads:
                    yield_threads(process.pid, names)


@contextlib.contextmanager
def _only_one(home: Path):
    """Holds the home's lock. Errors: AlreadyRunning."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "supervisor.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another supervisor runs in {home}") from None
        yield


async def _main(where: Endpoints) -> None:
    from infra.local.stack import COMPONENTS

    await Supervisor(where, COMPONENTS).run()


def main() -> int:
    from connectors.logs import configure_logging

    configure_logging("supervisor")
    where = endpoints()
    try:
        with _only_one(where.home):
            asyncio.run(_main(where))
    except AlreadyRunning as error:
        log.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
