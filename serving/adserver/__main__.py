"""Run: `python -m serving.adserver`. Settings: `HEADWATER_ADSERVER_*` (settings.py) and `HEADWATER_*` (endpoints)."""

from __future__ import annotations

import logging
import sys

import uvloop
from pydantic import ValidationError

from connectors.endpoints import endpoints
from connectors.logs import configure_logging
from schemas.errors import ConfigError
from serving.adserver.process import Place, serve
from serving.adserver.settings import Settings
from serving.adserver.workers import EXIT_CONFIG, EXIT_FAILED, supervise

logger = logging.getLogger(__name__)


def main() -> int:
    configure_logging("adserver")
    try:
        settings, ends = Settings(), endpoints()
        logger.info("settings", extra=settings.model_dump(mode="json"))
        if settings.workers > 1:
            return supervise(settings, ends)
        uvloop.run(serve(settings, ends, Place()))
    except (ConfigError, ValidationError) as e:
        logger.error("settings are wrong", extra={"detail": str(e)})
        return EXIT_CONFIG
    except OSError as e:
        logger.error("can't listen", extra={"detail": str(e)})
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
