"""Trains a click model, judges it on ads that it never saw, and promotes it when it deserves that.

In: gold/training_set. Out: a run and a version of model `ctr` in MLflow with `ctr_model/model.txt` and `spec.json`; a
row in the promotion table and the alias `champion` when the gate lets it pass.
Delivery: a training that dies leaves a run that is not finished and no champion; the alias is put right by the next.
Run: `python -m jobs.models train`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from connectors.mlflow import Mlflow, Run
from jobs.models.dataset import TRAINING_SET, Dataset, split
from jobs.models.evaluation import Interval, calibration, entropy_difference, normalised_entropy
from jobs.models.flavour import flavour_files
from jobs.models.gate import judge
from jobs.models.promotions import Promotion, Promotions
from jobs.models.settings import ModelSettings
from jobs.models.training import (
    MODEL_FILE,
    SPEC_FILE,
    ClickModel,
    linear_reference,
    load_model,
    parameters,
    train,
)
from schemas.errors import HeadwaterError, Refused

MODEL = "ctr"
ALIAS = "champion"
FOLDER = "ctr_model"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to. `before` is what served until now: the champion, or the baseline's smoothed rates.

    Units: normalised entropy on the held-out tail, smaller is better.
    """

    version: str
    promoted: bool
    words: str
    against: str
    before: float
    after: float
    baseline: float
    linear: float
    calibration: float
    ads: dict[str, int]
    clicks: dict[str, int]
    difference: Interval
    run_id: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    data: Dataset,
    data_version: int,
    settings: ModelSettings,
    mlflow: Mlflow,
    promotions: Promotions,
    code_version: str,
    clock_ms: Callable[[], int],
) -> Outcome:
    """Trains, logs, judges, promotes. Errors: Refused when there are too few clicks to train on at all."""
    parts = dict(zip(("train", "validation", "held_out"), split(data, *_shares(settings)), strict=True))
    clicks = {name: int(part.clicked.sum()) for name, part in parts.items()}
    for name, part in parts.items():
        if clicks[name] < 2 or clicks[name] > len(part) - 2:
            raise Refused(f"{clicks[name]} clicks of {len(part)} ads in {name}: nothing to learn from or judge by")
    tail = parts["held_out"]
    current = promotions.champion(MODEL)
    mirror(mlflow, current)
    model = train(parts["train"], parts["validation"], settings)
    after = model.predict(tail)
    before, against = _serving_now(mlflow, current, tail)
    difference = entropy_difference(
        after, before, tail.clicked, settings.bootstrap_rounds, settings.confidence, settings.seed
    )
    verdict = judge(difference, against, current is not None, clicks["held_out"], settings.min_clicks)
    measures = {
        "before": normalised_entropy(before, tail.clicked),
        "after": normalised_entropy(after, tail.clicked),
        "baseline": normalised_entropy(tail.baseline, tail.clicked),
        "linear": normalised_entropy(linear_reference(parts["train"], tail), tail.clicked),
        "calibration": calibration(after, tail.clicked),
    }
    lineage = {
        "code_version": code_version,
        "training_set": f"{TRAINING_SET}@{data_version}",
        "verdict": verdict.words,
    }
    logged_parameters = settings.model_dump() | {
        f"lightgbm.{name}": value for name, value in parameters(settings, parts["train"]).items()
    }
    logged_metrics = {
        **{name if name == "calibration" else f"normalised_entropy_{name}": v for name, v in measures.items()},
        "difference_low": difference.low,
        "difference_high": difference.high,
        "trees": float(model.booster.num_trees()),
    }
    now_ms = clock_ms()
    spec = model.spec(tail, now_ms, measures["after"])
    opened = mlflow.start_run(mlflow.experiment(MODEL), f"{MODEL}-{now_ms}", lineage)
    version = _log(mlflow, opened, model, spec, logged_parameters, logged_metrics, lineage)
    if verdict.promote:
        mirror(mlflow, promotions.promote(MODEL, version, current, clock_ms(), verdict.words))
    return Outcome(
        version=version,
        promoted=verdict.promote,
        words=verdict.words,
        against=against,
        **measures,
        ads={name: len(part) for name, part in parts.items()},
        clicks=clicks,
        difference=difference,
        run_id=opened.run_id,
    )


def mirror(mlflow: Mlflow, champion: Promotion | None) -> None:
    """Points MLflow's alias at the champion of the promotion table, when it does not already."""
    if champion is None:
        return
    seen = mlflow.alias(MODEL, ALIAS)
    if seen is None or seen.version != champion.version:
        mlflow.set_alias(MODEL, ALIAS, champion.version)


def _shares(settings: ModelSettings) -> tuple[float, float]:
    return settings.train_share, settings.validation_share


def _serving_now(mlflow: Mlflow, current: Promotion | None, tail: Dataset) -> tuple[np.ndarray, str]:
    """Predictions of what serves now, and its name."""
    if current is None:
        return tail.baseline, "the smoothed rates"
    version = mlflow.version(MODEL, current.version)
    if version is None:
        raise Refused(f"champion {MODEL} version {current.version} is not in MLflow: is it another server's?")
    champion = load_model(mlflow.artifact(version, MODEL_FILE).decode(), mlflow.artifact(version, SPEC_FILE))
    return champion.predict(tail), f"champion version {current.version}"


def _log(
    mlflow: Mlflow,
    opened: Run,
    model: ClickModel,
    spec: dict[str, Any],
    logged_parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    lineage: Mapping[str, str],
) -> str:
    """The version of the model in MLflow, promoted or not: a refused one can be looked at, too."""
    files = {MODEL_FILE: model.text.encode(), SPEC_FILE: json.dumps(spec, indent=1).encode()}
    try:
        mlflow.log(opened, logged_parameters, metrics)
        for name, content in (files | flavour_files(opened.run_id, MODEL_FILE)).items():
            mlflow.log_artifact(opened, f"{FOLDER}/{name}", content)
        version = mlflow.register(MODEL, opened, FOLDER, lineage).version
    except HeadwaterError:
        with suppress(HeadwaterError):
            mlflow.finish_run(opened, succeeded=False)
        raise
    mlflow.finish_run(opened)
    return version
