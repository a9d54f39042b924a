"""Several processes behind one port: forked from one that has loaded the code, restarted when they die.

They share one listening socket rather than a port each (SO_REUSEPORT): a connection that waits to be accepted then
belongs to all, so that none is reset when a process drains or dies, and whoever has fewest takes the next.
SIGTERM and SIGINT drain all, SIGHUP makes all read their files again.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from types import FrameType

import uvloop

from connectors.endpoints import Endpoints
from connectors.shared_listener import ConnectionCounts, SharedListener
from schemas.errors import ConfigError
from serving.adserver.process import Place, serve
from serving.adserver.settings import Settings

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_CONFIG = 1, 2
_BACKLOG = 1024
#: A worker that lives shorter than this failed at its start; so many of them in a row end the server.
_START_S, _FAILED_STARTS = 5.0, 5
_RESTART_S = 0.5
#: Beyond the drain, which is one deadline for all: how long a worker may take to end before it is killed.
GRACE_S = 5.0


def supervise(settings: Settings, ends: Endpoints) -> int:
    """Runs the workers until SIGTERM, and gives back the exit code. Errors: OSError when the port is taken."""
    listener = socket.create_server((ends.host, ends.port("adserver")), backlog=_BACKLOG)
    folder = Path(tempfile.mkdtemp(prefix="headwater-adserver-"))
    try:
        return _Workers(settings, ends, listener, folder).run()
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Workers:
    def __init__(self, settings: Settings, ends: Endpoints, listener: socket.socket, folder: Path) -> None:
        self._settings = settings
        self._ends = ends
        self._listener = listener
        self._folder = folder
        self._counts = ConnectionCounts(settings.workers)
        self._numbers: dict[int, tuple[int, float]] = {}  # process id -> number, start
        self._failed_starts = 0
        self._kill_s: float | None = None

    def run(self) -> int:
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        signal.signal(signal.SIGALRM, self._kill)
        for number in range(self._settings.workers):
            self._start(number)
        logger.info("workers started", extra={"count": self._settings.workers})
        code = 0
        while self._numbers:
            pid, status = os.wait()
            if pid not in self._numbers:
                continue
            number, began_s = self._numbers.pop(pid)
            ended = os.waitstatus_to_exitcode(status)
            if self._kill_s is not None:
                continue
            logger.error("worker ended", extra={"worker": number, "exit_code": ended})
            self._failed_starts = self._failed_starts + 1 if time.monotonic() - began_s < _START_S else 0
            if ended == EXIT_CONFIG or self._failed_starts >= _FAILED_STARTS:
                code = ended or EXIT_FAILED
                self._stop(signal.SIGTERM, None)
                continue
            time.sleep(_RESTART_S)
            if self._kill_s is None:
                self._start(number)
        return code

    def _start(self, number: int) -> None:
        gc.freeze()  # what is loaded stays shared with the workers, rather than copied by a collection
        pid = os.fork()
        if pid:
            self._numbers[pid] = (number, time.monotonic())
            return
        code = EXIT_FAILED
        try:
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
                signal.signal(name, signal.SIG_DFL)
            listener = SharedListener(self._listener, self._counts, number)
            place = Place(number, self._settings.workers, listener, self._folder)
            uvloop.run(serve(self._settings, self._ends, place))
            code = 0
        except ConfigError as e:
            logger.error("settings are wrong", extra={"detail": str(e)})
            code = EXIT_CONFIG
        except Exception:
            logger.exception("worker failed")
        finally:
            os._exit(code)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._kill_s is None:
            self._kill_s = self._settings.drain_s + GRACE_S
            signal.setitimer(signal.ITIMER_REAL, self._kill_s)
            self._pass_on(signal.SIGTERM, None)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        for pid in list(self._numbers):
            os.kill(pid, number)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._pass_on(signal.SIGKILL, None)
