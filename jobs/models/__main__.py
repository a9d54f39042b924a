"""`python -m jobs.models train | champion`: train and judge a model, or say who is champion and put the alias right."""

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
from connectors.logs import configure_logging
from connectors.mlflow import Mlflow
from jobs.models.dataset import load
from jobs.models.pipeline import ALIAS, MODEL, mirror, run
from jobs.models.promotions import Promotions
from jobs.models.settings import ModelSettings
from schemas.errors import HeadwaterError, TimedOut, Unavailable

logger = logging.getLogger("jobs.models")

EXIT_FAILED, EXIT_CONFIG, EXIT_UNAVAILABLE = 1, 2, 3


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 trained (promoted or refused by the gate), 1 not trained, 2 wrong settings, 3 no MLflow."""
    parser = argparse.ArgumentParser(prog="python -m jobs.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train on gold/training_set and judge")
    training.add_argument("--report", type=Path, metavar="FILE", help="write the outcome as JSON")
    commands.add_parser("champion", help="the champion, with MLflow's alias put right")
    arguments = parser.parse_args(argv)
    configure_logging("models")
    try:
        settings = ModelSettings()
    except ValidationError as e:
        logger.error("settings are wrong", extra={"problems": e.errors(include_url=False, include_input=False)})
        return EXIT_CONFIG
    try:
        if arguments.command == "champion":
            return _champion()
        return _train(settings, arguments.report)
    except (Unavailable, TimedOut) as e:
        logger.error("stopped", extra={"error": str(e)})
        return EXIT_UNAVAILABLE
    except HeadwaterError as e:
        logger.error("stopped", extra={"error": str(e)})
        return EXIT_FAILED


def _promotions() -> Promotions:
    return Promotions(endpoints().home / "models" / "promotions.db")


def _train(settings: ModelSettings, report: Path | None) -> int:
    data, data_version = load()
    outcome = run(
        data,
        data_version,
        settings,
        Mlflow(),
        _promotions(),
        code_version(),
        lambda: time.time_ns() // 1_000_000,
    )
    print(f"trained on {outcome.ads['train']} ads, {outcome.clicks['train']} clicked")
    print(
        f"normalised entropy on the held-out {outcome.ads['held_out']} ads: before {outcome.before:.4f} "
        f"({outcome.against}), after {outcome.after:.4f}; linear {outcome.linear:.4f}; "
        f"calibration {outcome.calibration:.3f}"
    )
    print(f"{MODEL} version {outcome.version}: {outcome.words}")
    if report:
        report.write_text(json.dumps(outcome.as_dict(), indent=1))
    return 0


def _champion() -> int:
    current = _promotions().champion(MODEL)
    if current is None:
        print(f"{MODEL} has no {ALIAS} yet")
        return 0
    mirror(Mlflow(), current)
    print(f"{MODEL} version {current.version} is {ALIAS} (generation {current.generation}): {current.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
