"""Machine code that walks no tree: all splits of a tree are tested for 32 candidates at once, in SIMD registers.

Each split that a candidate fails takes the leaves on its left away from a 64-bit set; the lowest leaf that is left is
the one that a walk would have ended in. There is nothing to mispredict and nothing to wait for, so a split costs less
than a nanosecond a candidate. Leaves are added up tree after tree, in LightGBM's own order: the sums are the same bits.
The code is the same for every model; models are arrays. It is made once per process by LLVM, for this processor.
llvmlite takes 40 MB and 0.2 s of CPU to load, Numba on top of it 65 MB and 1.2 s.
Source: Lucchese et al., "QuickScorer", SIGIR 2015, and its vectorised form, "Exploiting CPU SIMD extensions to speed-up
document scoring with tree ensembles", SIGIR 2016; LightGBM 4 `Tree::NumericalDecision`, `Tree::CategoricalDecision`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from serving.adserver.features.inputs import BLOCK

#: Leaves that a tree may have: bits of its set.
MOST_LEAVES = 64
#: How a split treats what is missing: 0 NaN goes left, 1 NaN goes right, 2 NaN and zero go left, 3 both go right.
KINDS = 4
#: What LightGBM takes for zero, either side of it (kZeroThreshold, a float).
ZERO = float.fromhex("0x1.a95a5cp-117")

_LANES = 8
_PARTS = range(BLOCK // _LANES)
_F64, _I64, _ADDRESS = ir.DoubleType(), ir.IntType(64), ir.PointerType()
_FLOATS, _INTS = ir.VectorType(_F64, _LANES), ir.VectorType(_I64, _LANES)

Score = Callable[[Any, int, int, int, int, int, int], None]


class Arrays(ctypes.Structure):
    """A model, as addresses of arrays that its owner keeps alive. Splits lie by tree and, within it, by kind."""

    _fields_ = (
        ("trees", ctypes.c_int64),
        ("split_start", ctypes.c_void_p),  # int64 per tree and kind, and the end
        ("split_row", ctypes.c_void_p),  # int64: which row of the inputs
        ("threshold", ctypes.c_void_p),  # float64: what is greater goes right
        ("lost", ctypes.c_void_p),  # int64: leaves that going right takes away
        ("table_start", ctypes.c_void_p),  # int64 per tree, and the end
        ("table_row", ctypes.c_void_p),  # int64: which row of the codes
        ("table_at", ctypes.c_void_p),  # int64: where in `kept` the table of a tree's category begins
        ("kept", ctypes.c_void_p),  # int64 per code: leaves that it leaves
        ("leaf_value", ctypes.c_void_p),  # float64, MOST_LEAVES per tree
    )


@cache
def compiled() -> Score:
    """score(arrays, inputs, codes, stride, blocks, leaves, out): raw scores of `blocks` times 32 candidates.

    Shape: by row, `stride` apart, `inputs` float64 and `codes` int64 (each must be in its table); `leaves` int64 per
    tree, those that splits on what all candidates share have left; `out` float64. Releases the GIL.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(_module())), machine)
    engine.finalize_object()
    kinds = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 2
    function: Any = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address("score"))
    function.engine = engine  # the code lives as long as its engine
    return function


def _module() -> ir.Module:
    """For each block of candidates, for each tree: categories, numbers, the leaf, the sum."""
    module = ir.Module("trees")
    kind = ir.FunctionType(ir.VoidType(), [_ADDRESS, _ADDRESS, _ADDRESS, _I64, _I64, _ADDRESS, _ADDRESS])
    function = ir.Function(module, kind, "score")
    lowest_bit = ir.Function(module, ir.FunctionType(_INTS, [_INTS, ir.IntType(1)]), f"llvm.cttz.v{_LANES}i64")
    code = _Code(function)
    arrays, inputs, codes, stride, blocks, leaves, out = function.args
    # every field is eight bytes
    fields = {name: code.load(arrays, n, _I64) for n, (name, _) in enumerate(Arrays._fields_)}
    field = {name: code.inttoptr(value, _ADDRESS) for name, value in fields.items()}
    zeros = [ir.Constant(_FLOATS, [0.0] * _LANES) for _ in _PARTS]
    with code.loop(_number(0), blocks) as (block, _):
        first = code.mul(block, _number(BLOCK))
        here = code.at(inputs, first), code.at(codes, first), code.at(out, first)
        with code.loop(_number(0), fields["trees"], zeros) as (tree, sums):
            sets = [code.splat(code.load(leaves, tree, _I64)) for _ in _PARTS]
            sets = _test_categories(code, field, tree, here[1], stride, sets)
            sets = _test_numbers(code, field, tree, here[0], stride, sets)
            values = code.at(field["leaf_value"], code.mul(tree, _number(MOST_LEAVES)))
            lowest = [code.call(lowest_bit, [leaves_left, ir.Constant(ir.IntType(1), 1)]) for leaves_left in sets]
            sums.next = [
                code.fadd(total, code.gather(values, leaf, _F64)) for total, leaf in zip(sums.now, lowest, strict=True)
            ]
        for n, total in enumerate(sums.now):
            code.store(total, code.at(here[2], _number(n * _LANES)), align=8)
    code.ret_void()
    return module


def _test_categories(
    code: _Code, field: dict[str, ir.Value], tree: ir.Value, codes: ir.Value, stride: ir.Value, sets: list[ir.Value]
) -> list[ir.Value]:
    """Leaves left after the tables of a tree: one look-up for all its splits on a category."""
    with code.loop(*code.bounds(field["table_start"], tree), sets) as (n, left):
        row = code.at(codes, code.mul(code.load(field["table_row"], n, _I64), stride))
        table = code.at(field["kept"], code.load(field["table_at"], n, _I64))
        kept = [code.gather(table, code.part(row, part, _INTS), _I64) for part in _PARTS]
        left.next = [code.and_(leaves, of_code) for leaves, of_code in zip(left.now, kept, strict=True)]
    return left.now


def _test_numbers(
    code: _Code, field: dict[str, ir.Value], tree: ir.Value, inputs: ir.Value, stride: ir.Value, sets: list[ir.Value]
) -> list[ir.Value]:
    """Leaves left after the numeric splits of a tree."""
    of_tree = code.mul(tree, _number(KINDS))
    for kind in range(KINDS):
        with code.loop(*code.bounds(field["split_start"], code.add(of_tree, _number(kind))), sets) as (n, left):
            row = code.at(inputs, code.mul(code.load(field["split_row"], n, _I64), stride))
            threshold = code.splat(code.load(field["threshold"], n, _F64))
            lost = code.splat(code.load(field["lost"], n, _I64))
            right = [_goes_right(code, kind, code.part(row, part, _FLOATS), threshold) for part in _PARTS]
            taken = [code.and_(code.sext(bits, _INTS), lost) for bits in right]
            left.next = [code.and_(leaves, code.not_(gone)) for leaves, gone in zip(left.now, taken, strict=True)]
        sets = left.now
    return sets


def _goes_right(code: _Code, kind: int, values: ir.Value, threshold: ir.Value) -> ir.Value:
    """Shape: a bit per candidate. An ordered comparison is false of NaN, an unordered one is true."""
    compare = code.fcmp_unordered if kind in (1, 3) else code.fcmp_ordered
    greater = compare(">", values, threshold)
    if kind < 2:
        return greater
    above, below = (ir.Constant(_FLOATS, [limit] * _LANES) for limit in (ZERO, -ZERO))
    there = code.or_(code.fcmp_ordered(">", values, above), code.fcmp_ordered("<", values, below))
    return code.and_(greater, there) if kind == 2 else code.or_(greater, code.not_(there))


def _number(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


class _Carried:
    """Values that go from one turn of a loop to the next: `now` in it and after it; `next` is set in it."""

    def __init__(self, now: list[ir.Value]) -> None:
        self.now = now
        self.next = now


class _Code(ir.IRBuilder):
    """A builder that knows arrays of eight-byte elements, and loops."""

    def __init__(self, function: ir.Function) -> None:
        super().__init__(function.append_basic_block())

    def at(self, array: ir.Value, index: ir.Value) -> ir.Value:
        return self.gep(array, [index], source_etype=_I64)

    def load(self, array: ir.Value, index: ir.Value | int, kind: ir.Type) -> ir.Value:  # type: ignore[override]
        element = self.at(array, _number(index) if isinstance(index, int) else index)
        return super().load(element, typ=kind, align=8)

    def bounds(self, starts: ir.Value, n: ir.Value) -> tuple[ir.Value, ir.Value]:
        return self.load(starts, n, _I64), self.load(starts, self.add(n, _number(1)), _I64)

    def part(self, row: ir.Value, part: int, kind: ir.VectorType) -> ir.Value:
        return self.load(row, part * _LANES, kind)

    def splat(self, value: ir.Value) -> ir.Value:
        vector = ir.VectorType(value.type, _LANES)
        first = self.insert_element(ir.Constant(vector, ir.Undefined), value, _index(0))
        return self.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES))

    def gather(self, array: ir.Value, indices: ir.Value, kind: ir.Type) -> ir.Value:
        """Elements one by one: the gather instructions of most processors are no faster."""
        found = ir.Constant(ir.VectorType(kind, _LANES), ir.Undefined)
        for lane in range(_LANES):
            value = self.load(array, self.extract_element(indices, _index(lane)), kind)
            found = self.insert_element(found, value, _index(lane))
        return found

    @contextmanager
    def loop(
        self, start: ir.Value, end: ir.Value, carried: Sequence[ir.Value] = ()
    ) -> Iterator[tuple[ir.Value, _Carried]]:
        """for n in range(start, end)"""
        before = self.block
        head, body, after = (self.append_basic_block(name) for name in ("head", "body", "after"))
        self.branch(head)
        self.position_at_end(head)
        n, *now = (self.phi(value.type) for value in (start, *carried))
        for phi, value in zip((n, *now), (start, *carried), strict=True):
            phi.add_incoming(value, before)
        self.cbranch(self.icmp_signed("<", n, end), body, after)
        self.position_at_end(body)
        state = _Carried(now)
        yield n, state
        for phi, value in zip((n, *now), (self.add(n, _number(1)), *state.next), strict=True):
            phi.add_incoming(value, self.block)
        self.branch(head)
        self.position_at_end(after)


def _index(lane: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), lane)
