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
from schemas.features import (
    CATEGORICAL_FEATURES,
    CATEGORIES,
    FEATURE_BY_NAME,
    FEATURES_VERSION,
    category_value,
    model_inputs,
)
from serving.adserver.features.columns import COLUMNS
from serving.adserver.features.inputs import KEPT_LINEUPS, Inputs
from serving.adserver.features.reader import Asked
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.scoring.engines import engine_of

PROBE_TOLERANCE = 1e-9
#: Impressions' worth of belief in the campaign's rate before a creative's own clicks count.
CREATIVE_PRIOR_IMPRESSIONS = 100.0
_MISSING = math.nan


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

    def p_ctr(self, inputs: Inputs, asked: Asked) -> np.ndarray:
        """Shape: float64 in [0, 1], one per candidate."""
        ...


class SmoothedRates:
    """The creative's rate of 24 h, shrunk to its campaign's, which is shrunk to the prior: cold start's ranking."""

    version: str | None = None

    def p_ctr(self, inputs: Inputs, asked: Asked) -> np.ndarray:
        clicks, impressions, campaign_rate = inputs.values[_RATES, : inputs.candidates]
        rate = (clicks + CREATIVE_PRIOR_IMPRESSIONS * campaign_rate) / (impressions + CREATIVE_PRIOR_IMPRESSIONS)
        return np.minimum(rate, 1.0)


_RATES = [COLUMNS.row[n] for n in ("creative_clicks_24h", "creative_impressions_24h", "campaign_ctr_24h")]


class ChampionModel:
    """A LightGBM model with its spec. Errors: ContractError when it is refused, with the reason."""

    def __init__(self, version: str, model_text: str, spec_json: bytes) -> None:
        try:
            spec = msgspec.json.decode(spec_json, type=ModelSpec)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise ContractError(f"spec.json: {e}") from e
        self.version: str | None = version
        self.spec = spec
        unknown = set(spec.inputs).difference(model_inputs())
        if unknown or spec.features_version > FEATURES_VERSION or len(set(spec.inputs)) < len(spec.inputs):
            raise ContractError(
                f"the model's inputs are {spec.inputs} of version {spec.features_version}, "
                f"this server's are {list(model_inputs())} of version {FEATURES_VERSION}"
            )
        if spec.calibration.kind not in ("platt", "identity"):
            raise ContractError(f"unknown calibration {spec.calibration.kind!r}")
        columns = {name: column for column, name in enumerate(spec.inputs)}
        self._categories = [(name, row) for row, name in enumerate(CATEGORICAL_FEATURES) if name in columns]
        self._engine = engine_of(
            model_text,
            [_PLACE[name] for name in spec.inputs],
            [columns[name] for name, _ in self._categories],
            [columns[name] for name in _SHARED if name in columns],
        )
        self.packed = self._engine.packed
        #: Codes as the engine takes them, by value; the last one is that of any other value.
        self._codes: dict[str, dict[str, float]] = {}
        self._unknown: dict[str, float] = {}
        for name, _ in self._categories:
            values = spec.categories.get(name, [])
            *known, other = self._engine.codes_of(columns[name], np.array([*range(len(values)), _MISSING])).tolist()
            self._codes[name] = dict(zip(values, known, strict=True))
            self._unknown[name] = other
        self._check_probes(spec.probe)
        self._ads: _Ads | None = None
        #: Codes of requests that asked for the same with the same candidates.
        self._coded: dict[tuple[bytes, Asked], np.ndarray] = {}

    def p_ctr(self, inputs: Inputs, asked: Asked) -> np.ndarray:
        if self._ads is None or self._ads.inventory is not inputs.inventory:
            self._ads = _Ads(inputs.inventory)
            self._coded.clear()
        key = inputs.lineup, asked
        codes = self._coded.get(key)
        if codes is None:
            if len(self._coded) >= KEPT_LINEUPS:
                self._coded.clear()
            codes = self._coded[key] = self._codes_for(self._ads, inputs, asked)
        return self._calibrated(self._engine.scores(inputs.values, codes, inputs.candidates))

    def _codes_for(self, ads: _Ads, inputs: Inputs, asked: Asked) -> np.ndarray:
        """Shape: a row per category, `inputs.values`' columns."""
        made = np.zeros((len(CATEGORICAL_FEATURES), inputs.values.shape[1]), self._engine.code_dtype)
        said = asked.columns()
        for name, row in self._categories:
            of_ad = _AD_COLUMN.get(name)
            if of_ad is None:
                made[row] = self._code(name, said)
                continue
            values, at = ads.columns[of_ad]
            codes = ads.codes.get(name)
            if codes is None:
                codes = np.array([self._code(name, said | {of_ad: v}) for v in values], self._engine.code_dtype)
                if CATEGORIES[name] == (of_ad,):
                    ads.codes[name] = codes
            made[row, : inputs.candidates] = codes[at[inputs.own]]
        return made

    def _code(self, name: str, columns: Mapping[str, str | None]) -> float:
        of = CATEGORIES[name]
        value = columns.get(of[0]) if len(of) == 1 else category_value(name, columns)
        return self._codes[name].get(value or "", self._unknown[name])

    def _calibrated(self, raw: np.ndarray) -> np.ndarray:
        calibration = self.spec.calibration
        if calibration.kind == "platt":
            raw = calibration.a * raw + calibration.b
        return 1.0 / (1.0 + np.exp(-raw))

    def _check_probes(self, probes: Sequence[Probe]) -> None:
        if not probes:
            raise ContractError("the spec has no probe rows")
        codes = {name: {v: float(n) for n, v in enumerate(self.spec.categories.get(name, []))} for name in CATEGORIES}

        def number(name: str, value: Any) -> float:
            if name in codes:
                return codes[name].get(value, _MISSING)
            default = FEATURE_BY_NAME[name].default if name in FEATURE_BY_NAME else 0.0
            return default if value is None else float(value)

        try:
            values = np.array([[number(n, p.inputs.get(n)) for n in self.spec.inputs] for p in probes], np.float64)
        except (TypeError, ValueError) as e:
            raise ContractError(f"a probe row has a value of a wrong type: {e}") from e
        raw = np.concatenate([self._engine.raw_scores(row[None]) for row in values])  # each is a request of its own
        difference = np.abs(self._calibrated(raw) - [p.p for p in probes])
        if not np.all(difference <= PROBE_TOLERANCE):
            raise ContractError(f"probe rows differ by up to {difference.max():.3g}: not the model that was trained")


class _Ads:
    """What a model keeps of a catalogue: for each column of ads its values and where each creative's is among them."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.columns: dict[str, tuple[list[str], np.ndarray]] = {}
        for column in dict.fromkeys(_AD_COLUMN.values()):
            of_row = [_OF_AD[column](row) for row in inventory.rows]
            values = {value: n for n, value in enumerate(dict.fromkeys(of_row))}
            self.columns[column] = (list(values), np.array([values[v] for v in of_row], np.intp))
        #: Codes of `columns`, of categories that need no more.
        self.codes: dict[str, np.ndarray] = {}


def _creative_id(row: AdRow) -> str:
    return row.creative.id


def _campaign_id(row: AdRow) -> str:
    return row.campaign.id


def _advertiser_id(row: AdRow) -> str:
    return row.advertiser.id


def _creative_format(row: AdRow) -> str:
    return row.creative.format


_OF_AD = {
    "creative_id": _creative_id,
    "campaign_id": _campaign_id,
    "advertiser_id": _advertiser_id,
    "creative_format": _creative_format,
}
#: The column of the ad that a category has, alone or beside the request's; other categories are the request's.
_AD_COLUMN = {name: column for name, columns in CATEGORIES.items() for column in columns if column in _OF_AD}
#: Row of the inputs, or of the codes, that holds a model input.
_PLACE = COLUMNS.row | {name: row for row, name in enumerate(CATEGORICAL_FEATURES)}
_SHARED = (*COLUMNS.shared, *(name for name in CATEGORIES if name not in _AD_COLUMN))
