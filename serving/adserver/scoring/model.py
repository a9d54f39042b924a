"""Click probability: a calibrated LightGBM model, and smoothed rates until there is one.

A model is refused unless its inputs are known here and it reproduces its own probe rows to 1e-9: training and serving
then speak of the same numbers. Inputs are found by name, and a name never changes its meaning, so a champion that was
trained before features were added goes on serving; one from a newer version of the features does not.
Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014 (calibration); Platt 1999.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from schemas.errors import ContractError
from schemas.features import CATEGORICAL_FEATURES, FEATURE_BY_NAME, FEATURES_VERSION, model_inputs
from serving.adserver.features.reader import NUMERIC, EntityCounters
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.scoring.booster import Booster

PROBE_TOLERANCE = 1e-9
#: Impressions' worth of belief in the campaign's rate before a creative's own clicks count.
CREATIVE_PRIOR_IMPRESSIONS = 100.0
_MISSING = math.nan
_INPUT_COLUMN = {name: column for column, name in enumerate(model_inputs())}


class Calibration(msgspec.Struct, forbid_unknown_fields=True):
    """p = sigmoid(a * raw + b) for `platt`; sigmoid(raw) for `identity`."""

    kind: str
    a: float = 1.0
    b: float = 0.0


class Probe(msgspec.Struct):
    """Inputs and the probability that the trainer got for them."""

    inputs: dict[str, Any]
    p: float


class ModelSpec(msgspec.Struct):
    """The sidecar `spec.json` of a model; what a newer trainer adds is ignored."""

    inputs: list[str]
    categories: dict[str, list[str]]
    calibration: Calibration
    probe: list[Probe]
    features_version: int = 1
    trained_at_ms: int = 0
    normalised_entropy: float | None = None


class Scorer(Protocol):
    """Gives each candidate's click probability. `version` is None for rates, which are no model."""

    version: str | None

    def p_ctr(
        self,
        inventory: Inventory,
        rows: Sequence[AdRow],
        numeric: np.ndarray,
        context: Mapping[str, str | None],
        counters: EntityCounters,
    ) -> np.ndarray:
        """Shape: float64 in [0, 1], one per row. `numeric` as features.NUMERIC; `context` by categorical name."""
        ...


class SmoothedRates:
    """The creative's rate of 24 h, shrunk to its campaign's, which is shrunk to the prior: cold start's ranking."""

    version: str | None = None

    def p_ctr(
        self,
        inventory: Inventory,
        rows: Sequence[AdRow],
        numeric: np.ndarray,
        context: Mapping[str, str | None],
        counters: EntityCounters,
    ) -> np.ndarray:
        campaign_rate = numeric[:, NUMERIC.index("campaign_ctr_24h")]
        if len(counters.creative_impressions) != len(inventory.rows):  # not read yet, or of another catalogue
            return campaign_rate
        position = np.fromiter((r.row for r in rows), np.intp, len(rows))
        clicks, impressions = counters.creative_clicks[position], counters.creative_impressions[position]
        rate = (clicks + CREATIVE_PRIOR_IMPRESSIONS * campaign_rate) / (impressions + CREATIVE_PRIOR_IMPRESSIONS)
        return np.minimum(rate, 1.0)


class ChampionModel:
    """A LightGBM model with its spec. Errors: ContractError when it is refused, with the reason."""

    def __init__(self, version: str, model_text: str, spec_json: bytes) -> None:
        try:
            spec = msgspec.json.decode(spec_json, type=ModelSpec)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise ContractError(f"spec.json: {e}") from e
        self.version: str | None = version
        self.spec = spec
        unknown = [name for name in spec.inputs if name not in _INPUT_COLUMN]
        if unknown or spec.features_version > FEATURES_VERSION or len(set(spec.inputs)) < len(spec.inputs):
            raise ContractError(
                f"the model's inputs are {spec.inputs} of version {spec.features_version}, "
                f"this server's are {list(_INPUT_COLUMN)} of version {FEATURES_VERSION}"
            )
        if spec.calibration.kind not in ("platt", "identity"):
            raise ContractError(f"unknown calibration {spec.calibration.kind!r}")
        self._codes = {
            name: {value: float(code) for code, value in enumerate(spec.categories.get(name, ()))}
            for name in CATEGORICAL_FEATURES
        }
        self._columns = [_INPUT_COLUMN[name] for name in spec.inputs]
        self._booster = Booster(model_text)
        if self._booster.inputs != len(spec.inputs):
            raise ContractError(f"the model has {self._booster.inputs} inputs, its spec names {len(spec.inputs)}")
        self._check_probes(spec.probe)
        self._row_codes: tuple[Inventory, np.ndarray] | None = None

    def p_ctr(
        self,
        inventory: Inventory,
        rows: Sequence[AdRow],
        numeric: np.ndarray,
        context: Mapping[str, str | None],
        counters: EntityCounters,
    ) -> np.ndarray:
        values = np.empty((len(rows), len(_INPUT_COLUMN)))
        values[:, : len(NUMERIC)] = numeric
        position = np.fromiter((r.row for r in rows), np.intp, len(rows))
        own = self._codes_of(inventory)
        for offset, name in enumerate(CATEGORICAL_FEATURES):
            column = len(NUMERIC) + offset
            if name in _OWN_CATEGORIES:
                values[:, column] = own[position, _OWN_CATEGORIES.index(name)]
            else:
                values[:, column] = self._codes[name].get(context.get(name) or "", _MISSING)
        return self._calibrated(self._booster.raw_scores(values.take(self._columns, axis=1)))

    def _codes_of(self, inventory: Inventory) -> np.ndarray:
        """Codes of each creative's own categories, made once per catalogue."""
        if self._row_codes is None or self._row_codes[0] is not inventory:
            codes = [
                [
                    self._codes["creative_id"].get(r.creative.id, _MISSING),
                    self._codes["campaign_id"].get(r.campaign.id, _MISSING),
                ]
                for r in inventory.rows
            ]
            self._row_codes = (inventory, np.array(codes, np.float64).reshape(-1, len(_OWN_CATEGORIES)))
        return self._row_codes[1]

    def _calibrated(self, raw: np.ndarray) -> np.ndarray:
        calibration = self.spec.calibration
        if calibration.kind == "platt":
            raw = calibration.a * raw + calibration.b
        return 1.0 / (1.0 + np.exp(-raw))

    def _check_probes(self, probes: Sequence[Probe]) -> None:
        if not probes:
            raise ContractError("the spec has no probe rows")
        values = np.array([[self._input(n, p.inputs.get(n)) for n in self.spec.inputs] for p in probes], np.float64)
        difference = np.abs(self._calibrated(self._booster.raw_scores(values)) - [p.p for p in probes])
        if not np.all(difference <= PROBE_TOLERANCE):
            raise ContractError(f"probe rows differ by up to {difference.max():.3g}: not the model that was trained")

    def _input(self, name: str, value: Any) -> float:
        if name in self._codes:
            return self._codes[name].get(value, _MISSING)
        return float(FEATURE_BY_NAME[name].default if name in FEATURE_BY_NAME else 0.0) if value is None else value


#: Categories that belong to the candidate; the others belong to the request.
_OWN_CATEGORIES = ("creative_id", "campaign_id")
