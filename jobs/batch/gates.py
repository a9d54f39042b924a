"""Great Expectations gates: a batch that fails one is not written.

Each gate is a list of expectations on a whole batch; rules of single rows are in silver.py, because one pass over the
rows costs a third of what the same rules cost here. The library takes ten CPU seconds to import: `preload` does that
in a thread while Spark's Java starts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from schemas.errors import HeadwaterError
from schemas.features import FEATURES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: (expectation, its arguments)
Expectation = tuple[str, dict[str, Any]]

_TYPE_FORM = r"^[a-z][a-z0-9_]*$"
_PSEUDONYM_FORM = r"^v[0-9]+:[A-Za-z0-9_-]{22}$"

SILVER: tuple[Expectation, ...] = (
    ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
    ("ExpectColumnValuesToBeUnique", {"column": "event_id"}),
    ("ExpectColumnValuesToNotBeNull", {"column": "record_id"}),
    ("ExpectColumnValuesToNotBeNull", {"column": "published_time_ms"}),
    ("ExpectColumnValuesToMatchRegex", {"column": "event_type", "regex": _TYPE_FORM}),
    ("ExpectColumnValuesToMatchRegex", {"column": "user_pseudonym", "regex": _PSEUDONYM_FORM}),
    ("ExpectColumnValuesToMatchRegex", {"column": "currency", "regex": "^[A-Z]{3}$"}),
    ("ExpectColumnValuesToBeBetween", {"column": "cost_micros", "min_value": 0, "max_value": 100_000_000}),
)
CAMPAIGN_HOURLY: tuple[Expectation, ...] = (
    ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
    ("ExpectColumnValuesToBeBetween", {"column": "events", "min_value": 0}),
    ("ExpectColumnValuesToBeBetween", {"column": "spend_micros", "min_value": 0}),
    (
        "ExpectColumnPairValuesAToBeGreaterThanB",
        {"column_A": "sessions", "column_B": "sessions_completed", "or_equal": True, "mostly": 0.95},
    ),
)
TRAINING_SET: tuple[Expectation, ...] = (
    ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
    ("ExpectColumnValuesToBeUnique", {"column": "record_id"}),
    ("ExpectColumnValuesToBeInSet", {"column": "clicked", "value_set": [0, 1]}),
    ("ExpectColumnMeanToBeBetween", {"column": "clicked", "max_value": 0.5}),
    *(("ExpectColumnValuesToNotBeNull", {"column": f.name}) for f in FEATURES),
    *(("ExpectColumnValuesToNotBeNull", {"column": name}) for name in ("creative_id", "campaign_id", "placement_id")),
    *(
        (
            "ExpectColumnValuesToBeBetween",
            {"column": f.name, "min_value": 0} | ({"max_value": 1} if f.denominator else {}),
        )
        for f in FEATURES
    ),
)


_POSITION = "position"


class GateFailed(HeadwaterError):
    """A batch does not hold what it must; nothing of it was written. The message names each failed expectation."""


def preload() -> Callable[[], Any]:
    """Starts to import Great Expectations in a thread; the answer waits for it and gives back the module."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    found: dict[str, Any] = {}

    def load() -> None:
        own_log = logging.getLogger("great_expectations")
        own_log.setLevel(logging.WARNING)  # it logs how it is built
        import great_expectations

        own_log.setLevel(logging.WARNING)  # which the import undoes
        found["module"] = great_expectations

    thread = threading.Thread(target=load, name="great-expectations", daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join()
        if "module" not in found:
            raise ImportError("great_expectations can't be imported")
        return found["module"]

    return wait


class Gates:
    """Checks batches of one session. `module` is what `preload` gives back."""

    def __init__(self, module: Callable[[], Any]) -> None:
        self._module = module
        self._context: Any = None

    def check(self, name: str, rows: DataFrame, expectations: tuple[Expectation, ...]) -> int:
        """The number of expectations that held: all. Errors: GateFailed names the others, with what was found."""
        gx = self._module()
        if self._context is None:
            self._context = gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = {"globally": False}
            self._context.data_sources.add_spark("batch", persist=False)
        asset = self._context.data_sources.get("batch").add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
        # Only whether each holds: all of them are then one pass over the rows. What was found costs a query for each,
        # so only those that failed are asked for it.
        first = batch.validate(self._suite(name, expectations), result_format="BOOLEAN_ONLY")
        failed = tuple(expectations[r.expectation_config.meta[_POSITION]] for r in first.results if not r.success)
        problems = []
        if failed:
            details = batch.validate(self._suite(f"{name} failed", failed), result_format="BASIC")
            problems = [_words(r) for r in details.results if not r.success]
        self._context.data_sources.get("batch").delete_asset(name)
        if failed:
            raise GateFailed(f"gate {name}: {'; '.join(problems)}")
        return len(expectations)

    def _suite(self, name: str, expectations: tuple[Expectation, ...]) -> Any:
        gx = self._module()
        made = [
            getattr(gx.expectations, kind)(**arguments, meta={_POSITION: position})
            for position, (kind, arguments) in enumerate(expectations)
        ]
        return gx.ExpectationSuite(name=name, expectations=made)


def _words(result: Any) -> str:
    config = result.expectation_config
    arguments = {k: v for k, v in config.kwargs.items() if k != "batch_id" and v is not None}
    found = result.result or {}
    shown = {k: found[k] for k in ("observed_value", "unexpected_count", "unexpected_percent") if k in found}
    problem = (result.exception_info or {}).get("exception_message")
    return f"{config.type}({arguments}) found {problem or shown}"
