"""One process of the ad server: everything wired, served until SIGTERM, and put away in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import REGISTRY, generate_latest

from connectors.endpoints import Endpoints
from connectors.http_messages import Limits
from connectors.http_server import serve_until_terminated
from connectors.keys import KeyRing
from connectors.shared_listener import SharedListener
from connectors.tokens import TokenMinter
from connectors.valkey import AsyncValkey
from schemas.catalog import Catalog
from schemas.catalog_text import catalog_in_steps, load_bidders
from schemas.errors import ConfigError
from serving.adserver import metrics
from serving.adserver.background import Background
from serving.adserver.decider import Decider, Serving
from serving.adserver.decision_log import DecisionLog
from serving.adserver.doors.ads_manager import AdsManager
from serving.adserver.doors.app import Doors
from serving.adserver.dsps.bidders import Bidders, call_rules
from serving.adserver.dsps.exposition import DspMetrics
from serving.adserver.dsps.notifier import Notifier
from serving.adserver.dsps.tiers import TierKeeper
from serving.adserver.exposition import Siblings
from serving.adserver.files import FileWatch
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budgets import Budgets
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.trackers import TrackerMaker
from serving.adserver.markup.unwrap import Unwrapper
from serving.adserver.overload import Overload
from serving.adserver.scoring.champion import ChampionWatch
from serving.adserver.scoring.model import ChampionModel
from serving.adserver.settings import Settings
from serving.adserver.store import CountersRefresher, Store
from serving.adserver.traffic.integrity import Integrity
from serving.adserver.traffic.suspects import Suspects

#: What the log and notices have of a drain at least, when requests took all of its time.
LAST_S = 2.0
#: Shows nothing of its own: until the catalogue has been read.
_NO_CATALOG = Catalog(0, "USD", [], [], [], [], [], [])


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes behind the port this one is. Alone, it has no `folder` and binds the port itself."""

    number: int = 0
    count: int = 1
    listener: SharedListener | None = None
    folder: Path | None = None


async def serve(settings: Settings, ends: Endpoints, place: Place) -> None:
    """Serves until SIGTERM; SIGHUP reads the files again. Errors: OSError when the port is taken, ConfigError for
    broken keys.
    """
    serving = Serving(Inventory(_NO_CATALOG))
    keys = KeyRing.load(ends.secrets)
    valkey = AsyncValkey(ends.valkey_url)
    overload = Overload(settings.shed_lag_ms, settings.shed_in_flight)
    store = Store(
        valkey,
        settings.store_timeout_ms / 1000,
        settings.token_ttl_s,
        settings.budget_times,
        lambda: overload.lag_s,
    )
    bidders = Bidders(call_rules(settings, place.count))
    counters = CountersRefresher(store, lambda: serving.inventory, settings.counters_refresh_s, settings.win_open_s)
    log = DecisionLog(settings.log_queue_messages)
    trackers = TrackerMaker(TokenMinter(keys), ends.collector_url, settings.token_ttl_s)
    notifier = Notifier(settings.notices_allow_private)
    suspects = Suspects(valkey, time.time)
    integrity = Integrity(
        settings.traffic_refused, settings.traffic_address_per_minute, settings.traffic_user_per_minute, suspects.has
    )
    lists = [
        FileWatch(path, use)
        for path, use in (
            (settings.data_center_networks, integrity.use_networks),
            (settings.bot_user_agents, integrity.use_user_agents),
        )
        if path is not None
    ]
    unwrapper = Unwrapper(
        VastFetcher(settings.outside_vast_bytes, settings.outside_allow_private), settings.unwrap_limits
    )
    decider = Decider(
        serving,
        settings,
        keys,
        store,
        counters.snapshot,
        bidders,
        trackers,
        log,
        notify=notifier.send,
        integrity=integrity,
        look=unwrapper.look,
    )

    def use_catalog(text: str) -> Iterator[None]:
        try:
            data = msgspec.json.decode(text)  # at a third of what `json` takes, in one piece
        except msgspec.DecodeError as e:
            raise ConfigError(f"not JSON: {e}") from e
        catalog = yield from catalog_in_steps(data)
        serving.inventory = yield from Inventory.in_steps(catalog)
        metrics.CATALOG_VERSION.set(serving.inventory.version)
        gc.freeze()  # without a collection, which would hold requests up: auctions leave no cycles behind

    def use_champion(model: ChampionModel) -> None:
        serving.scorer = model
        gc.freeze()
        metrics.MODEL_TRAINED.set(model.spec.trained_at_ms / 1000)

    catalog_file = FileWatch(settings.catalog_file or ends.catalog_path, use_catalog)
    bidders_file = FileWatch(
        settings.bidders_file or ends.bidders_path, lambda text: bidders.replace(load_bidders(text).bidders)
    )
    champion = ChampionWatch(
        ends.mlflow_url, settings.model_name, settings.model_alias, settings.model_poll_s, use_champion
    )

    challenger: ChampionWatch | None = None
    if settings.challenger_alias:
        serving.challenger_alias = settings.challenger_alias

        def use_challenger(model: ChampionModel) -> None:
            serving.challenger = model
            gc.freeze()

        challenger = ChampionWatch(
            ends.mlflow_url, settings.model_name, settings.challenger_alias, settings.model_poll_s, use_challenger
        )

    background = Background()

    def status() -> tuple[bool, dict[str, Any]]:
        ready = bool(serving.inventory.rows) or len(bidders) > 0
        return ready, {
            "worker": place.number,
            "status": "ready" if ready else "not ready: neither campaigns nor bidders",
            "catalog_version": serving.inventory.version,
            "creatives": len(serving.inventory.rows),
            "bidders": len(bidders),
            "dsps": {
                name: {"tier": desk.tier, "score_cpm_micros": desk.score_cpm_micros}
                for name, desk in bidders.desks.items()
            },
            "model_version": serving.scorer.version,
            "valkey": store.connected,
            "budgets_known": store.budgets.known,
            "user_features": store.breaker.state.name.lower(),
            "decision_log": log.available,
            "problems": [
                *(p for p in (*(f.problem for f in files), champion.problem) if p),
                *background.problems,
            ],
        }

    files = (catalog_file, bidders_file, *lists)

    async def reload() -> None:
        for file in files:
            await file.look_in_slices()

    def own_metrics() -> str:
        return generate_latest().decode()

    siblings = Siblings(place.folder, place.number, place.count, own_metrics) if place.folder is not None else None
    tier_keeper = TierKeeper(valkey, lambda: bidders.desks, settings.dsp_tiers_s)
    dsp_metrics = DspMetrics(lambda: bidders.desks)
    REGISTRY.register(dsp_metrics)
    for file in files:
        file.look()
    _keep_out_of_collections()
    reloads: set[asyncio.Task[None]] = set()

    def reload_soon() -> None:
        task = asyncio.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_soon)
    await valkey.start()
    log.start()
    tasks: dict[str, Callable[[], Awaitable[None]]] = {
        "catalog file": lambda: catalog_file.run(settings.files_poll_s),
        "bidders file": lambda: bidders_file.run(settings.files_poll_s),
        **{f"list {i}": partial(file.run, settings.files_poll_s) for i, file in enumerate(lists, 1)},
        "counters": counters.run,
        "unwrapper": unwrapper.run,
        "suspects": lambda: suspects.run(settings.traffic_verdicts_s),
        "budgets": lambda: store.budgets.run(lambda: serving.inventory),
        "champion": champion.run,
        **({"challenger": challenger.run} if challenger is not None else {}),
        "overload": overload.run,
        "tiers": tier_keeper.run,
    }
    for name, run in tasks.items():
        background.start(name, run)
    doors = Doors(
        decider,
        lambda: serving.inventory,
        status,
        overload,
        siblings.merged if siblings is not None else None,
        AdsManager(store, trackers, keys, lambda: serving.inventory, settings, time.time, log),
        settings.tag_rules,
    )
    loop = asyncio.get_running_loop()
    until_s, returning = 0.0, set()

    def stopping() -> None:
        """Leases go back first: whoever is killed while it drains strands none."""
        nonlocal until_s
        until_s = loop.time() + settings.drain_s
        returning.add(asyncio.create_task(store.budgets.return_leases()))

    try:
        if siblings is not None:
            await siblings.start()
        limits = Limits(body_bytes=settings.body_bytes)
        await serve_until_terminated(
            doors.handle, ends.host, ends.port("adserver"), limits, settings.drain_s, place.listener, stopping
        )
    finally:
        if siblings is not None:
            siblings.close()
        REGISTRY.unregister(dsp_metrics)
        background.cancel()
        champion.close()
        if challenger is not None:
            challenger.close()
        bidders.close()
        await put_away(store.budgets, notifier, log, max(LAST_S, until_s - loop.time()))
        await valkey.close()


async def put_away(budgets: Budgets, notifier: Notifier, log: DecisionLog, left_s: float) -> None:
    """Ends what outlives requests: money first, then the log and notices at once, in what is left of the drain."""
    await budgets.close()
    await asyncio.gather(notifier.drain(left_s), log.close(left_s))
    notifier.close()


def _keep_out_of_collections() -> None:
    """What was loaded lives as long as the process: looking through it for garbage would only hold requests up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
