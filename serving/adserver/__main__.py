"""Run: `python -m serving.adserver`. Settings: `HEADWATER_ADSERVER_*` (settings.py) and `HEADWATER_*` (endpoints)."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import uvloop
from pydantic import ValidationError

from connectors.endpoints import Endpoints, endpoints
from connectors.http_messages import Limits
from connectors.http_server import serve_until_terminated
from connectors.keys import KeyRing
from connectors.logs import configure_logging
from connectors.tokens import TokenMinter
from connectors.valkey import AsyncValkey
from schemas.catalog import Catalog, load_bidders, load_catalog
from schemas.errors import ConfigError
from serving.adserver import metrics
from serving.adserver.decider import Decider, Serving
from serving.adserver.decision_log import DecisionLog
from serving.adserver.doors.app import Doors
from serving.adserver.dsps.bidders import Bidders, call_rules
from serving.adserver.dsps.notifier import Notifier
from serving.adserver.files import FileWatch
from serving.adserver.inventory import Inventory
from serving.adserver.markup.trackers import TrackerMaker
from serving.adserver.scoring.champion import ChampionWatch
from serving.adserver.scoring.model import ChampionModel
from serving.adserver.settings import Settings
from serving.adserver.store import CountersRefresher, Store

logger = logging.getLogger(__name__)

#: Shows nothing of its own: until the catalogue has been read.
_NO_CATALOG = Catalog(0, "USD", [], [], [], [], [], [])


async def serve(settings: Settings, ends: Endpoints) -> None:
    """Serves until SIGTERM. Errors: OSError when the port is taken, ConfigError for broken keys."""
    serving = Serving(Inventory(_NO_CATALOG))
    keys = KeyRing.load(ends.secrets)
    valkey = AsyncValkey(ends.valkey_url)
    store = Store(valkey, settings.store_timeout_ms / 1000, settings.token_ttl_s, settings.budget_times)
    bidders = Bidders(call_rules(settings))
    counters = CountersRefresher(store, lambda: serving.inventory, settings.counters_refresh_s, settings.win_open_s)
    log = DecisionLog(settings.log_queue_messages)
    trackers = TrackerMaker(TokenMinter(keys), ends.collector_url, settings.token_ttl_s)
    notifier = Notifier(settings.notices_allow_private)
    decider = Decider(serving, settings, keys, store, counters.snapshot, bidders, trackers, log, notify=notifier.send)

    def use_catalog(text: str) -> None:
        serving.inventory = Inventory(load_catalog(text))
        metrics.CATALOG_VERSION.set(serving.inventory.version)

    def use_champion(model: ChampionModel) -> None:
        serving.scorer = model
        metrics.MODEL_TRAINED.set(model.spec.trained_at_ms / 1000)

    catalog_file = FileWatch(ends.catalog_path, use_catalog)
    bidders_file = FileWatch(ends.bidders_path, lambda text: bidders.replace(load_bidders(text).bidders))
    champion = ChampionWatch(
        ends.mlflow_url, settings.model_name, settings.model_alias, settings.model_poll_s, use_champion
    )

    def status() -> tuple[bool, dict[str, Any]]:
        ready = bool(serving.inventory.rows) or len(bidders) > 0
        return ready, {
            "status": "ready" if ready else "not ready: neither campaigns nor bidders",
            "catalog_version": serving.inventory.version,
            "creatives": len(serving.inventory.rows),
            "bidders": len(bidders),
            "model_version": serving.scorer.version,
            "valkey": store.connected,
            "decision_log": log.available,
            "problems": [p for p in (catalog_file.problem, bidders_file.problem, champion.problem) if p],
        }

    catalog_file.look()
    bidders_file.look()
    await valkey.start()
    log.start()
    background = [
        asyncio.create_task(task)
        for task in (
            catalog_file.run(settings.files_poll_s),
            bidders_file.run(settings.files_poll_s),
            counters.run(),
            store.budgets.run(lambda: serving.inventory),
            champion.run(),
        )
    ]
    for task in background:
        task.add_done_callback(_must_not_end)
    doors = Doors(decider, lambda: serving.inventory, status)
    try:
        limits = Limits(body_bytes=settings.body_bytes)
        await serve_until_terminated(doors.handle, ends.host, ends.port("adserver"), limits, settings.drain_s)
    finally:
        for task in background:
            task.cancel()
        champion.close()
        bidders.close()
        await notifier.drain(settings.drain_s)
        notifier.close()
        await log.close(settings.drain_s)
        await store.budgets.close()
        await valkey.close()


def _must_not_end(task: asyncio.Task[None]) -> None:
    """A background task that dies is a defect: say so, since nothing waits for it."""
    if not task.cancelled() and task.exception() is not None:
        logger.critical("background task died", exc_info=task.exception())


def main() -> int:
    configure_logging("adserver")
    try:
        settings, ends = Settings(), endpoints()
        logger.info("settings", extra=settings.model_dump())
        uvloop.run(serve(settings, ends))
    except (ConfigError, ValidationError) as e:
        logger.error("settings are wrong", extra={"detail": str(e)})
        return 2
    except OSError as e:
        logger.error("can't listen", extra={"detail": str(e)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
