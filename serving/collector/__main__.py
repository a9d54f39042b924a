"""`python -m serving.collector`: the doors for beacons, telemetry, conversions and upstream logs."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time

import uvloop
from pydantic import ValidationError

from connectors.code_version import code_version
from connectors.endpoints import endpoints
from connectors.http_messages import Limits
from connectors.http_server import serve_until_terminated
from connectors.keys import KeyRing
from connectors.logs import configure_logging
from connectors.networks import Networks
from connectors.registry import SchemaRegistry
from schemas.errors import ConfigError, TimedOut, Unavailable
from serving.collector.app import Collector
from serving.collector.buffer import Buffer
from serving.collector.contracts import Contracts
from serving.collector.metrics import CollectorMetrics
from serving.collector.networks import Doubts
from serving.collector.settings import CollectorSettings

logger = logging.getLogger("serving.collector")

EXIT_FAILED, EXIT_CONFIG = 1, 2
_RETRY_S = 0.5


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def contracts_when_known(registry: SchemaRegistry) -> Contracts:
    """Waits for the schema registry, unless it was asked by an earlier process on this machine."""
    waiting = False
    while True:
        try:
            return await asyncio.to_thread(Contracts.load, registry, endpoints().home / "schema-ids")
        except (Unavailable, TimedOut) as e:
            if not waiting:
                logger.warning("waiting for the schema registry", extra={"error": str(e)})
            waiting = True
            await asyncio.sleep(_RETRY_S)


async def serve(settings: CollectorSettings, ring: KeyRing, doubts: Doubts) -> int:
    """Serves until told to stop. Gives back how many buffered records could not be sent at the end."""
    places, metrics = endpoints(), CollectorMetrics()
    contracts = await contracts_when_known(SchemaRegistry(places.registry_url))
    buffer = Buffer(settings, metrics)
    buffer.start()
    collector = Collector(settings, contracts, ring, buffer, metrics, code_version(), doubts, now_ms)
    gc.collect()
    gc.freeze()  # what lives for ever is not looked through again
    await serve_until_terminated(
        collector, places.host, places.port("collector"), Limits(body_bytes=settings.body_bytes)
    )
    return await buffer.drain(settings.drain_s)


def main() -> int:
    """Exit code: 0 told to stop and all sent, 1 records were lost or the port is taken, 2 wrong settings."""
    configure_logging("collector")
    try:
        settings = CollectorSettings()
        ring = KeyRing.load(endpoints().secrets)
        doubts = Doubts(Networks.load(settings.data_center_networks), settings.forwarded_hops)
    except ValidationError as e:
        logger.error("settings are wrong", extra={"problems": e.errors(include_url=False, include_input=False)})
        return EXIT_CONFIG
    except ConfigError as e:
        logger.error("settings are wrong", extra={"problems": str(e)})
        return EXIT_CONFIG
    logger.info("starting", extra={"settings": settings.model_dump(mode="json")})
    try:
        left = uvloop.run(serve(settings, ring, doubts))
    except OSError as e:
        logger.error("can't listen", extra={"error": str(e)})
        return EXIT_FAILED
    return EXIT_FAILED if left else 0


if __name__ == "__main__":
    sys.exit(main())
