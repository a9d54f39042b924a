"""`python -m jobs.batch run [--hours H ...] [--train]`: bronze → silver → gold, and a model of it when asked."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from connectors.code_version import code_version
from connectors.endpoints import endpoints
from connectors.jars import NotSetUp
from connectors.logs import configure_logging
from connectors.spark import session
from jobs.batch.chain import Chain, with_neighbours
from jobs.batch.gates import Gates, preload
from jobs.batch.lake_tables import LakeTables
from jobs.batch.settings import BatchSettings
from schemas.errors import HeadwaterError

logger = logging.getLogger("jobs.batch")

EXIT_FAILED, EXIT_CONFIG = 1, 2


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 a gate failed or bronze is missing, 2 wrong settings or arguments."""
    parser = argparse.ArgumentParser(prog="python -m jobs.batch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the whole chain in one Spark session")
    run.add_argument("--hours", nargs="+", metavar="YYYY-MM-DD-HH", help="only these hours (UTC) of hourly tables")
    run.add_argument("--train", action="store_true", help="train a model on the new training set afterwards")
    run.add_argument("--report", metavar="FILE", help="write counts and parity as JSON")
    arguments = parser.parse_args(argv)
    configure_logging("batch")
    try:
        settings = BatchSettings()
        with_neighbours(arguments.hours or [], 0)
    except ValidationError as e:
        logger.error("settings are wrong", extra={"problems": e.errors(include_url=False, include_input=False)})
        return EXIT_CONFIG
    except ValueError as e:
        parser.error(str(e))
    try:
        report = _run(settings, arguments.hours)
    except (HeadwaterError, NotSetUp) as e:
        logger.error("stopped", extra={"error": f"{type(e).__name__}: {e}"})
        return EXIT_FAILED
    if arguments.report:
        Path(arguments.report).write_text(json.dumps(report, indent=1))
    if arguments.train:
        from jobs.models.__main__ import main as models

        return models(["train"])
    return 0


def _run(settings: BatchSettings, hours: list[str] | None) -> dict:
    started_s = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - started_s:5.1f} s] {line}", flush=True)

    expectations = preload()
    spark = session("headwater-batch")
    try:
        progress("Spark is up")
        tables = LakeTables(spark, endpoints().lake_uri, code_version(), settings.seed)
        report = Chain(tables, Gates(expectations), settings, progress).run(hours)
        progress("done")
        return report
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
