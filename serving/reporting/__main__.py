"""Runs the reporting API until SIGTERM.

Run: `python -m serving.reporting`. Settings: `HEADWATER_REPORTING_*` (serving/reporting/settings.py).
Exit code 2 when settings, catalogue or key file are wrong.
"""

from __future__ import annotations

import logging
import sys

import uvicorn
from pydantic import ValidationError

from connectors.api_keys import FILE_NAME
from connectors.druid import DruidClient
from connectors.endpoints import endpoints
from connectors.logs import configure_logging
from schemas.errors import ConfigError
from serving.reporting.access import Directory
from serving.reporting.app import Services, create_app
from serving.reporting.freshness import FreshnessWatch
from serving.reporting.settings import ReportingSettings


def main() -> int:
    configure_logging("reporting")
    log = logging.getLogger(__name__)
    try:
        settings = ReportingSettings()
        places = endpoints()
        directory = Directory(places.catalog_path, places.secrets / FILE_NAME)
    except (ConfigError, ValidationError) as error:
        log.error("settings_wrong", extra={"error": str(error)})
        return 2
    druid = DruidClient.of(places, timeout_s=settings.query_timeout_s)
    watch = FreshnessWatch(druid, settings.freshness_interval_s, settings.behind_ms)
    log.info("starting", extra={"settings": settings.model_dump(), "port": places.port("reporting")})
    uvicorn.run(
        create_app(Services(druid, directory, settings, watch)),
        host=places.host,
        port=places.port("reporting"),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
