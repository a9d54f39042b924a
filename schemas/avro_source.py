"""Avro readers and writers of one schema as plain Python functions, made from the schema's text.

fastavro walks the schema for every record; a function in which each field is a line or two does not, and costs a
fifth of it for our records. The functions are written as source and compiled once, as `dataclasses` does it: a closure
per field would spend most of its time on calls. Only what our event schemas use is known here: nullable or plain
bytes, string, int, long, boolean, and arrays and maps of strings; writers also know double, arrays of int and maps of
double and string. For anything else ask fastavro (schemas/codec.py).
Source: Avro 1.12 specification, "Binary Encoding" (zig-zag variable-length integers, unions, blocks).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from schemas.errors import ContractError

#: A field of a schema, as parsed from its JSON.
Field = Mapping[str, Any]
Reader = Callable[[bytes, int], dict[str, Any]]
Writer = Callable[[Mapping[str, Any], tuple[bytes, ...]], bytes]

#: What a reader raises on bytes that are no such record, and a writer on values that do not fit.
PROBLEMS = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error)


@lru_cache(maxsize=4_096)  # of a time in ms all but the lowest 14 bits stay the same for 8 seconds
def _base_128(rest: int) -> bytes:
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


#: A double. Errors: PROBLEMS.
write_double = struct.Struct("<d").pack

#: Index -64 … 63 (negative ones count from the end, as Python does).
_SMALL = [_base_128(n << 1 ^ n >> 63) for n in (*range(64), *range(-64, 0))]


def write_long(value: int) -> bytes:
    """A long, or an int. Errors: PROBLEMS."""
    if -64 <= value < 64:
        return _SMALL[value]
    rest = (value << 1) ^ (value >> 63)  # zig-zag
    if rest < 0x4000:
        return bytes((rest & 0x7F | 0x80, rest >> 7))
    if rest < 0x200000:
        return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14))
    if rest < 0x10000000:
        return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14 & 0x7F | 0x80, rest >> 21))
    if rest >> 64:
        raise ValueError(f"{value} does not fit 64 bits")
    return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80)) + _base_128(rest >> 14)


def _write_int(value: int) -> bytes:
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} does not fit 32 bits")
    return write_long(value)


def _write_string(value: str) -> bytes:
    encoded = value.encode()
    return write_long(len(encoded)) + encoded


def _block(count: int, items: Iterable[bytes]) -> bytes:
    """The items of an array or a map in one block, and the empty one that ends them."""
    return write_long(count) + b"".join(items) + b"\x00" if count else b"\x00"


def write_array(items: Sequence[bytes]) -> bytes:
    """An array of items that are encoded already."""
    return _block(len(items), items)


def _write_strings(values: Sequence[str]) -> bytes:
    return _block(len(values), map(_write_string, values))


def _write_string_map(values: Mapping[str, str]) -> bytes:
    return _block(len(values), [_write_string(name) + _write_string(value) for name, value in values.items()])


def _write_ints(values: Sequence[int]) -> bytes:
    return _block(len(values), map(_write_int, values))


@lru_cache(maxsize=256)
def _double_map(names: tuple[str, ...]) -> tuple[Callable[..., bytes], tuple[bytes, ...]]:
    """(how a map of these names, one at least, is packed, what stands before each value): the same names come again."""
    before = [_write_string(name) for name in names]
    before[0] = write_long(len(names)) + before[0]
    return struct.Struct("<" + "".join(f"{len(piece)}sd" for piece in before) + "x").pack, tuple(before)


def _write_double_map(values: Mapping[str, float]) -> bytes:
    pack, before = _double_map(tuple(values))
    return pack(*chain.from_iterable(zip(before, values.values(), strict=True)))


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """(value, where the next one begins)."""
    byte = data[at]
    at += 1
    bits, shift = byte & 0x7F, 7
    while byte > 0x7F:
        byte = data[at]
        at += 1
        bits |= (byte & 0x7F) << shift
        shift += 7
    if bits >= 2**64:
        raise ValueError("a number of more than 64 bits")
    return bits >> 1 ^ -(bits & 1), at


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    length, at = _read_long(data, at)
    if length < 0:
        raise ValueError("a negative length")
    return length, at


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    length, at = _read_length(data, at)
    return data[at : at + length].decode(), at + length


def _blocks(data: bytes, at: int) -> tuple[int, int]:
    """(items in the block that begins here, 0 at the end; where they begin)."""
    count, at = _read_long(data, at)
    if count < 0:  # the block's size in bytes follows
        count = -count
        _size, at = _read_long(data, at)
    if count > len(data):
        raise ValueError("more items than bytes")
    return count, at


def _read_strings(data: bytes, at: int) -> tuple[list[str], int]:
    values: list[str] = []
    count, at = _blocks(data, at)
    while count:
        for _ in range(count):
            value, at = _read_string(data, at)
            values.append(value)
        count, at = _blocks(data, at)
    return values, at


def _read_string_map(data: bytes, at: int) -> tuple[dict[str, str], int]:
    values: dict[str, str] = {}
    count, at = _blocks(data, at)
    while count:
        for _ in range(count):
            name, at = _read_string(data, at)
            values[name], at = _read_string(data, at)
        count, at = _blocks(data, at)
    return values, at


#: The names that the sources use.
_NAMES: dict[str, Any] = {
    "SMALL": _SMALL,
    "TRUE": b"\x01",
    "FALSE": b"\x00",
    "EMPTY": b"\x00",
    "BOOLEANS": (False, True),
    "long": write_long,
    "int32": _write_int,
    "double": write_double,
    "ints": _write_ints,
    "double_map": _write_double_map,
    "strings": _write_strings,
    "string_map": _write_string_map,
    "read_long": _read_long,
    "read_length": _read_length,
    "read_strings": _read_strings,
    "read_string_map": _read_string_map,
}
#: Type to the expression that encodes `x`.
_WRITES = {
    "bytes": "(SMALL[n] if (n := len(x)) < 64 else long(n)) + x",
    "string": "(SMALL[n] if (n := len(x := x.encode())) < 64 else long(n)) + x",
    "int": "SMALL[x] if -64 <= x < 64 else int32(x)",
    "long": "SMALL[x] if -64 <= x < 64 else long(x)",
    "double": "double(x)",
    "boolean": "TRUE if x else FALSE",
    "array": "strings(x) if x else EMPTY",
    "map": "string_map(x) if x else EMPTY",
    "array of int": "ints(x) if x else EMPTY",
    "map of double": "double_map(x) if x else EMPTY",
}
#: Type to the lines that read a value at `at` into `x`. A slice beyond the end is short: `at` tells it in the end.
_LENGTH = (
    "n = data[at]",
    "if n & 0x81:",
    " n, at = read_length(data, at)",
    "else:",
    " n >>= 1; at += 1",
)
_READS: dict[str, tuple[str, ...]] = {
    "bytes": (*_LENGTH, "x = data[at:at + n]; at += n"),
    "string": (*_LENGTH, "x = data[at:at + n].decode(); at += n"),
    "int": ("x, at = read_long(data, at)",),
    "long": ("x, at = read_long(data, at)",),
    "boolean": ("x = BOOLEANS[data[at]]; at += 1",),
    "array": ("x, at = read_strings(data, at) if data[at] else ([], at + 1)",),
    "map": ("x, at = read_string_map(data, at) if data[at] else ({}, at + 1)",),
}


def _kind(declared: Any, known: Collection[str]) -> tuple[str, bool]:
    """(type, nullable). Errors: ContractError for a type that is not known."""
    if isinstance(declared, list) and declared[0] == "null" and len(declared) == 2:
        return _kind(declared[1], known)[0], True
    kind = declared
    if isinstance(declared, dict):
        of = declared.get("items") or declared.get("values")
        kind = declared["type"] if of == "string" else f"{declared['type']} of {of}"
    if isinstance(kind, str) and kind in known:
        return kind, False
    raise ContractError(f"no compiled form for {declared}")


def compiled_writer(fields: Sequence[Field | int]) -> Writer:
    """A function of (values, given): the fields one behind the other in Avro's binary encoding.

    An int among the fields stands for the piece of that index in `given`. A field that `values` lacks has its default.
    Errors: ContractError for a type that is not known here; of the function: PROBLEMS.
    """
    names = dict(_NAMES)
    lines: list[str] = []
    pieces: list[str] = []
    for i, field in enumerate(fields):
        if isinstance(field, int):
            pieces.append(f"given[{field}]")
            continue
        kind, nullable = _kind(field["type"], _WRITES)
        name = repr(field["name"])
        write = [f"x = v[{name}]", f"p{i} = {_WRITES[kind]}"]
        if nullable:
            write = [f"x = v[{name}]", f"p{i} = b'\\x00' if x is None else b'\\x02' + ({_WRITES[kind]})"]
        if "default" in field:
            default = field["default"]
            if kind == "bytes" and default is not None:
                default = default.encode("latin-1")  # as JSON writes bytes in a schema
            required = {"name": field["name"], "type": field["type"]}
            names[f"default{i}"] = compiled_writer([required])({field["name"]: default}, ())
            write = [f"if {name} in v:", *_indented(write), f"else: p{i} = default{i}"]
        lines += write
        pieces.append(f"p{i}")
    lines.append(f"return b''.join(({', '.join(pieces)}{',' * bool(pieces)}))")
    return _compiled("write", "v, given", lines, names)


def compiled_reader(fields: Sequence[Field]) -> Reader:
    """A function of (bytes, where the record begins): the record that fills the rest of them.

    Errors: ContractError for a type that is not known here; of the function: PROBLEMS.
    """
    lines: list[str] = []
    for i, field in enumerate(fields):
        kind, nullable = _kind(field["type"], _READS)
        read = [*_READS[kind], f"f{i} = x"]
        if nullable:
            lines += ["k = data[at]; at += 1", "if k == 2:", *_indented(read)]
            lines += [f"elif k == 0: f{i} = None", "else: raise ValueError(f'branch {k >> 1} of a union of two')"]
        else:
            lines += read
    lines.append("if at != len(data): raise ValueError('bytes missing or left over')")
    items = ", ".join(f"{field['name']!r}: f{i}" for i, field in enumerate(fields))
    lines.append(f"return {{{items}}}")
    return _compiled("read", "data, at", lines, dict(_NAMES))


def _indented(lines: Sequence[str]) -> list[str]:
    return [f" {line}" for line in lines]


def _compiled(name: str, arguments: str, lines: Sequence[str], names: dict[str, Any]) -> Any:
    source = "\n".join([f"def {name}({arguments}):", *_indented(lines)])
    exec(compile(source, f"<avro {name}>", "exec"), names)
    return names[name]
