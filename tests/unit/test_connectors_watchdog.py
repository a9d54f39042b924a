"""A call that does not come back ends the process; one that does, however often, does not."""

from __future__ import annotations

import threading
import time

from connectors.watchdog import Watchdog


def test_a_call_that_does_not_come_back_ends_the_process() -> None:
    ended = threading.Event()
    watchdog = Watchdog(0.05, ended.set)
    with watchdog.watching():
        assert ended.wait(5)
    watchdog.close()


def test_calls_that_come_back_in_time_do_not_add_up() -> None:
    ended = threading.Event()
    watchdog = Watchdog(0.5, ended.set)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 1.0:
        with watchdog.watching():
            time.sleep(0.01)
    assert not ended.wait(0.2), "nothing is watched"
    watchdog.close()
