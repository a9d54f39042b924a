"""Runs Druid in the foreground until SIGTERM or SIGINT.

Run: `python -m infra.local.druid`. Exit code 0 after a signal, 1 when a role ended on its own.
"""

from __future__ import annotations

import logging
import signal

from connectors.endpoints import endpoints
from connectors.logs import configure_logging
from infra.local.druid.host import DruidHost, leave

STOP_TIMEOUT_S = 8.0


def main() -> int:
    configure_logging("druid")
    log = logging.getLogger(__name__)
    host = DruidHost(endpoints())
    asked_to_stop = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        host.ended.set()

    host.start()
    # After the JVM has started, for it replaces handlers that were there before.
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    host.ended.wait()
    for part, failure in host.failures.items():
        log.error("druid_part_failed", extra={"part": part, "error": str(failure)})
    stopped = host.stop(STOP_TIMEOUT_S)
    log.info("druid_stopped", extra={"clean": stopped, "asked": asked_to_stop})
    return 0 if asked_to_stop else 1


if __name__ == "__main__":
    leave(main())
