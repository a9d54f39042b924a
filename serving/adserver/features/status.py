"""What each input of a winner rests on. Derived from the values and the groups' status, which the decision log both
has, so that it costs a decision nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from serving.adserver.features.columns import COLUMNS, Columns
from serving.adserver.features.reader import DEFAULT, PRESENT

#: Shrinking to a parent without any counter gives the parent's value but for rounding.
_ROUNDING = 1e-12


def each_status(values: Mapping[str, float], of_group: Mapping[str, str], columns: Columns = COLUMNS) -> dict[str, str]:
    """Status by input. `values` by input, `of_group` by entity, as `FeatureReader.read` gives them.

    An input whose group is `expired`, `missing` or `default` is that as well. One of a group that is `present` is
    `default` when its value is what it is without a counter: its default, or that of the feature it is shrunk to. What
    the moment and the creative say themselves is `present`.
    """
    found = {}
    for feature in columns.features:
        if feature.name not in values:
            continue
        group = of_group.get(feature.entity, PRESENT)
        without = values.get(feature.parent, feature.default) if feature.parent is not None else feature.default
        counted = not math.isclose(values[feature.name], without, rel_tol=_ROUNDING)
        found[feature.name] = group if group != PRESENT or counted else DEFAULT
    return found | {name: PRESENT for name in values if name not in found}
