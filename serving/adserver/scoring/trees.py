"""A LightGBM model's text, packed into the arrays of `kernel`: the same scores as LightGBM's, bit for bit.

A split on a number is a threshold and the set of leaves on its left. All splits of a tree on one category are one
table from code to the leaves that are left. Splits on what all candidates of a request share are told once per
request, here, in NumPy.
Source: LightGBM 4 `Tree::ToString` (the text), `Tree::NumericalDecision`, `Tree::CategoricalDecision`.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from schemas.errors import ContractError
from serving.adserver.scoring import kernel

#: Entries that tables of categories may have in all (8 bytes each).
MOST_TABLE_ENTRIES = 1 << 23
_ALL = np.uint64(2**64 - 1)
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
_ZERO_LEFT, _ZERO_RIGHT = 2, 3  # of kernel.KINDS
#: Combinations of what requests have in common whose leaves are remembered at a time.
_KEPT_COMBINATIONS = 256


class NotPackable(Exception):
    """The model has something that the kernel does not know; LightGBM itself does."""


@dataclass(frozen=True, slots=True)
class _Split:
    """`lost`: the leaves that a candidate loses by going right, as bits."""

    tree: int
    column: int
    lost: int


@dataclass(frozen=True, slots=True)
class _Number(_Split):
    kind: int
    threshold: float


@dataclass(frozen=True, slots=True)
class _Category(_Split):
    codes: np.ndarray  # those that go left


class PackedTrees:
    """A model of up to 64 leaves a tree. Not for two threads at once.

    `place`: the row of `inputs`, or of `codes` for a category, that holds each column; without it, its own number.
    `categories`: columns that come as codes; without it, those that trees split on as such.
    `shared`: columns that are the same for all candidates of a call of `scores`.
    Errors: ContractError for a text that is no model, NotPackable for one that is none for the kernel.
    """

    def __init__(
        self,
        text: str,
        place: Sequence[int] | None = None,
        categories: Collection[int] | None = None,
        shared: Collection[int] = (),
    ) -> None:
        self.inputs, leaves, splits = _read(text)
        self.trees = len(leaves)
        self._place = np.arange(self.inputs) if place is None else np.array(place, np.intp)
        numbers = [s for s in splits if isinstance(s, _Number)]
        tables = _Tables([s for s in splits if isinstance(s, _Category)])
        self._unknown = tables.unknown
        self._categories = frozenset(tables.unknown if categories is None else categories)
        if categories is not None:
            as_numbers = self._categories.intersection(s.column for s in numbers)
            as_categories = tables.unknown.keys() - self._categories
            if as_numbers or as_categories:
                raise NotPackable(f"columns {sorted(as_numbers | as_categories)} are split as what they are not")
        self._shared_numbers = _SharedNumbers([s for s in numbers if s.column in shared], self._place)
        self._shared_tables = [
            (self._place[c], tables.trees_of(c), tables.at_of(c)) for c in tables.unknown if c in shared
        ]
        self._shared_rows = np.array([row for row, _, _ in self._shared_tables], np.intp)
        #: Leaves that the shared categories leave, by their codes.
        self._leaves_of: dict[bytes, np.ndarray] = {}
        self._own = self._packed(
            [s for s in numbers if s.column not in shared],
            {pair: at for pair, at in tables.at.items() if pair[1] not in shared},
            tables.kept,
            leaves,
        )
        self._arrays = kernel.Arrays(self.trees, *(a.ctypes.data for a in self._own.values()))
        self._arrays_at = ctypes.byref(self._arrays)
        self._leaves = np.empty(self.trees, np.uint64)
        self._leaves_at = self._leaves.ctypes.data
        self._out = np.empty(0)
        self._score = kernel.compiled()

    def _packed(
        self,
        numbers: Sequence[_Number],
        tables: Mapping[tuple[int, int], int],
        kept: np.ndarray,
        leaves: Sequence[np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Arrays in the order of kernel.Arrays."""
        numbers = sorted(numbers, key=lambda s: (s.tree, s.kind, s.column))
        groups = [s.tree * kernel.KINDS + s.kind for s in numbers]
        leaf_value = np.zeros((max(self.trees, 1), kernel.MOST_LEAVES))
        for tree, values in enumerate(leaves):
            leaf_value[tree, : len(values)] = values
        return {
            "split_start": np.searchsorted(groups, np.arange(self.trees * kernel.KINDS + 1)).astype(np.int64),
            "split_row": np.array([self._place[s.column] for s in numbers], np.int64),
            "threshold": np.array([s.threshold for s in numbers], np.float64),
            "lost": np.array([s.lost for s in numbers], np.uint64),
            "table_start": np.searchsorted([t for t, _ in tables], np.arange(self.trees + 1)).astype(np.int64),
            "table_row": np.array([self._place[c] for _, c in tables], np.int64),
            "table_at": np.array(list(tables.values()), np.int64),
            "kept": kept,
            "leaf_value": leaf_value,
        }

    def coded(self, column: int, values: np.ndarray) -> np.ndarray:
        """Codes of a category's values, as `scores` wants them. Shape: float64 to int64.

        NaN, what is negative and what no split names are one code; LightGBM cuts off what is after the point.
        """
        unknown = self._unknown.get(column, 0)
        known = (values > -1) & (values < unknown)  # false of NaN
        return np.where(known, values, unknown).astype(np.int64)

    def scores(self, inputs: np.ndarray, codes: np.ndarray, rows: int) -> np.ndarray:
        """Raw scores (log-odds) of the first `rows` candidates.

        Shape: `inputs` float64, `codes` int64 as `coded` makes them, a row per column, both in C order, of the same
        length, a multiple of kernel.BLOCK. What is past `rows` is read, and must be codes too.
        """
        stride = inputs.shape[1]
        blocks = -(-rows // kernel.BLOCK)
        if codes.shape[1] != stride or blocks * kernel.BLOCK > stride or stride % kernel.BLOCK:
            raise ValueError(f"{rows} candidates in arrays of {stride} and {codes.shape[1]}")
        leaves, out = self._leaves, self._out
        leaves[:] = self._left_by_categories(codes)
        self._shared_numbers.apply(inputs[:, 0], leaves)
        if len(out) < blocks * kernel.BLOCK:
            out = self._out = np.empty(blocks * kernel.BLOCK)
        self._score(
            self._arrays_at,
            inputs.ctypes.data,
            codes.ctypes.data,
            stride,
            blocks,
            self._leaves_at,
            out.ctypes.data,
        )
        return out[:rows].copy()

    def _left_by_categories(self, codes: np.ndarray) -> np.ndarray:
        """Leaves of each tree that the shared categories leave. Requests have few combinations of those."""
        of = codes[self._shared_rows, 0]
        key = of.tobytes()
        found = self._leaves_of.get(key)
        if found is None:
            if len(self._leaves_of) >= _KEPT_COMBINATIONS:
                self._leaves_of.clear()
            found = self._leaves_of[key] = np.full(self.trees, _ALL)
            for (_, trees, at), code in zip(self._shared_tables, of, strict=True):
                found[trees] &= self._own["kept"][at + code]
        return found

    def raw_scores(self, values: np.ndarray) -> np.ndarray:
        """Raw scores. Shape: `values` float64, one row per candidate, `inputs` columns, shared ones equal."""
        rows = len(values)
        shape = int(self._place.max()) + 1, max(-(-rows // kernel.BLOCK), 1) * kernel.BLOCK
        inputs, codes = np.zeros(shape), np.zeros(shape, np.int64)
        for column, place in enumerate(self._place):
            if column in self._categories:
                codes[place, :rows] = self.coded(column, values[:, column])
            else:
                inputs[place, :rows] = values[:, column]
        return self.scores(inputs, codes, rows)


class _SharedNumbers:
    """Splits on numbers that all candidates have in common."""

    def __init__(self, splits: Sequence[_Number], place: np.ndarray) -> None:
        splits = sorted(splits, key=lambda s: s.tree)
        self._row = place[[s.column for s in splits]] if splits else np.zeros(0, np.intp)
        self._threshold = np.array([s.threshold for s in splits], np.float64)
        self._lost = np.array([s.lost for s in splits], np.uint64)
        kind = np.array([s.kind for s in splits], np.int64)
        self._nan_right = (kind == 1) | (kind == _ZERO_RIGHT)
        self._is_zero_kind = kind >= _ZERO_LEFT
        self._any_zero_kind = bool(self._is_zero_kind.any())
        self._trees, self._starts = np.unique(np.array([s.tree for s in splits], np.intp), return_index=True)

    def apply(self, inputs: np.ndarray, leaves: np.ndarray) -> None:
        """Takes from the trees' leaves what the inputs (float64, one per row) rule out."""
        if not len(self._trees):
            return
        values = inputs[self._row]
        right = values > self._threshold
        default = np.isnan(values)
        if self._any_zero_kind:
            default |= self._is_zero_kind & (np.abs(values) <= kernel.ZERO)
        if default.any():
            right = np.where(default, self._nan_right, right)
        lost = np.bitwise_or.reduceat(self._lost * right, self._starts)
        leaves[self._trees] &= ~lost


class _Tables:
    """For each tree and category it splits on, the leaves that each code leaves; the last code is any other."""

    def __init__(self, splits: Sequence[_Category]) -> None:
        #: Column of a category to the code of what no split names.
        self.unknown: dict[int, int] = {}
        of: defaultdict[tuple[int, int], list[_Category]] = defaultdict(list)
        for split in splits:
            greatest = int(split.codes.max(initial=-1))
            self.unknown[split.column] = max(self.unknown.get(split.column, 0), greatest + 1)
            of[split.tree, split.column].append(split)
        self.unknown = dict(sorted(self.unknown.items()))
        entries = sum(self.unknown[column] + 1 for _, column in of)
        if entries > MOST_TABLE_ENTRIES:
            raise NotPackable(f"categories of {entries} entries, of at most {MOST_TABLE_ENTRIES}")
        self.kept = np.full(entries, _ALL)
        self.at: dict[tuple[int, int], int] = {}
        end = 0
        for pair, of_pair in sorted(of.items()):
            self.at[pair] = end
            table = self.kept[end : end + self.unknown[pair[1]] + 1]
            for split in of_pair:
                goes_right = np.ones(len(table), bool)
                goes_right[split.codes] = False
                table[goes_right] &= ~np.uint64(split.lost)
            end += len(table)

    def trees_of(self, column: int) -> np.ndarray:
        return np.array([tree for tree, c in self.at if c == column], np.intp)

    def at_of(self, column: int) -> np.ndarray:
        return np.array([at for (_, c), at in self.at.items() if c == column], np.int64)


def _read(text: str) -> tuple[int, list[np.ndarray], list[_Split]]:
    """(columns, each tree's leaves from left to right, splits). Errors: ContractError, NotPackable."""
    header, *sections = text.partition("\nend of trees")[0].split("\nTree=")
    try:
        unknown = _unknown_form(header)
        inputs = int(_fields(header)["max_feature_idx"]) + 1
        leaves: list[np.ndarray] = []
        splits: list[_Split] = []
        for tree, section in enumerate(sections):
            fields = _fields(section)
            values, found = _tree(tree, fields, inputs)
            if fields.get("is_linear", "0") != "0":
                unknown = "linear trees"
            elif len(values) > kernel.MOST_LEAVES:
                unknown = f"a tree of {len(values)} leaves, of at most {kernel.MOST_LEAVES}"
            leaves.append(values)
            splits += found
    except (KeyError, ValueError, IndexError, OverflowError) as e:
        raise ContractError(f"model.txt: {type(e).__name__} {e}") from e
    if unknown:
        raise NotPackable(unknown)
    return inputs, leaves, splits


def _unknown_form(header: str) -> str:
    """What makes a model more than one sum of trees; "" if nothing does."""
    fields = _fields(header)
    if fields["num_class"] != "1" or fields["num_tree_per_iteration"] != "1":
        return "several classes"
    return "a mean of trees" if "average_output" in header.split("\n") else ""


def _fields(section: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


def _tree(tree: int, fields: Mapping[str, str], inputs: int) -> tuple[np.ndarray, list[_Split]]:
    """(leaves' values from left to right, splits). Errors: KeyError, ValueError, IndexError."""
    leaf_value = _floats(fields["leaf_value"])
    if len(leaf_value) == 1:
        return leaf_value, []
    order, lost = _left_to_right(_ints(fields["left_child"]), _ints(fields["right_child"]))
    if sorted(order) != list(range(len(leaf_value))):
        raise ValueError(f"tree {tree} does not lead to each of its {len(leaf_value)} leaves once")
    codes = _codes(fields) if int(fields.get("num_cat", 0)) else []
    found: list[_Split] = []
    columns, types = _ints(fields["split_feature"]), _ints(fields["decision_type"])
    for column, threshold, decision, gone in zip(columns, _floats(fields["threshold"]), types, lost, strict=True):
        if not 0 <= column < inputs:
            raise ValueError(f"tree {tree} splits on input {column} of {inputs}")
        if decision & _CATEGORICAL:
            found.append(_Category(tree, column, gone, codes[int(threshold)]))
        else:
            found.append(_Number(tree, column, gone, *_test(float(threshold), decision)))
    return leaf_value[order], found


def _left_to_right(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """(leaves from left to right, of each split the leaves on its left as bits). A child below 0 is leaf ~child.

    Errors: ValueError, IndexError for what is no tree.
    """
    order: list[int] = []
    lost = [0] * len(left)
    seen = 0
    waiting: list[tuple[int, int]] = [(0, -1)]  # (node, number of leaves before it, once its left side is done)
    while waiting:
        node, before = waiting.pop()
        if node < 0:
            order.append(~node)
        elif before < 0:
            seen += 1
            if seen > len(left):
                raise ValueError("a split is its own ancestor")
            waiting += [(right[node], -1), (node, len(order)), (left[node], -1)]
        else:
            lost[node] = (1 << len(order)) - (1 << before)
    return order, lost


def _test(threshold: float, decision: int) -> tuple[int, float]:
    """(kind, threshold) of a split on a number.

    What LightGBM takes for zero is zero to it before it compares, so a threshold in between is moved to the edge.
    """
    missing, default_left = decision >> 2 & 3, bool(decision & _DEFAULT_LEFT)
    if missing == _MISSING_ZERO:
        return (_ZERO_LEFT if default_left else _ZERO_RIGHT), threshold
    if abs(threshold) <= kernel.ZERO:
        threshold = kernel.ZERO if threshold >= 0 else float(np.nextafter(-kernel.ZERO, -1))
    nan_left = default_left if missing == _MISSING_NAN else threshold >= 0  # otherwise NaN is taken for zero
    return (0 if nan_left else 1), threshold


def _codes(fields: Mapping[str, str]) -> list[np.ndarray]:
    """For each split on a category, the codes that go left."""
    words = np.array(fields["cat_threshold"].split(), np.uint32).astype("<u4")
    return [
        np.flatnonzero(np.unpackbits(words[first:last].view(np.uint8), bitorder="little"))
        for first, last in pairwise(_ints(fields["cat_boundaries"]))
    ]


def _floats(values: str) -> np.ndarray:
    return np.array(values.split(), np.float64)


def _ints(values: str) -> list[int]:
    return [int(v) for v in values.split()]
