"""Whether a schema change breaks somebody, and in words: who must roll out first.

FULL_TRANSITIVE asks that every released version can read every other. A field may then be added or removed only
with a default. The registry enforces this too; this check needs no registry and explains itself.
Source: Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Writer's primitive type to the reader's types that it may be promoted to.
_PROMOTIONS: dict[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a change from `old` to `new` means. Empty tuples: nothing breaks."""

    breaks_new_readers: tuple[str, ...]  # the new schema can't read old data
    breaks_old_readers: tuple[str, ...]  # the old schema can't read new data

    @property
    def full(self) -> bool:
        return not self.breaks_new_readers and not self.breaks_old_readers

    @property
    def words(self) -> str:
        """One sentence: what may be rolled out, and in which order."""
        if self.full:
            return "compatible both ways: readers and writers may roll out in any order"
        if not self.breaks_new_readers:
            return (
                "readers must roll out first, all of them, and only then writers: the old schema can't read "
                "new data: " + "; ".join(self.breaks_old_readers)
            )
        if not self.breaks_old_readers:
            return (
                "writers must roll out first, and readers only when no old data is left: the new schema can't "
                "read old data: " + "; ".join(self.breaks_new_readers)
            )
        return (
            "no order of roll-out works, make a new version of the topic: new readers of old data: "
            + "; ".join(self.breaks_new_readers)
            + ". Old readers of new data: "
            + "; ".join(self.breaks_old_readers)
        )


def compare(old: Any, new: Any) -> Verdict:
    """The verdict on a change between two parsed .avsc documents (as `json.loads` gives them)."""
    return Verdict(tuple(unreadable(reader=new, writer=old)), tuple(unreadable(reader=old, writer=new)))


def unreadable(reader: Any, writer: Any, path: str = "$") -> list[str]:
    """Why data of `writer` can't be read with `reader`, each with its path; empty when it can."""
    if isinstance(writer, list):  # every branch may occur
        return [problem for branch in writer for problem in unreadable(reader, branch, path)]
    if isinstance(reader, list):  # one branch suffices
        if any(not unreadable(branch, writer, path) for branch in reader):
            return []
        return [f"{path}: {_name(writer)} fits none of {[_name(b) for b in reader]}"]
    reader_type, writer_type = _type(reader), _type(writer)
    if reader_type != writer_type:
        if reader_type in _PROMOTIONS.get(writer_type, frozenset()):
            return []
        return [f"{path}: {writer_type} can't be read as {reader_type}"]
    if reader_type == "record":
        return _unreadable_record(reader, writer, path)
    if reader_type == "array":
        return unreadable(reader["items"], writer["items"], f"{path}[]")
    if reader_type == "map":
        return unreadable(reader["values"], writer["values"], f"{path}{{}}")
    if reader_type == "fixed" and reader["size"] != writer["size"]:
        return [f"{path}: fixed of {writer['size']} bytes can't be read as {reader['size']}"]
    if reader_type == "enum" and "default" not in reader:
        unknown = set(writer["symbols"]) - set(reader["symbols"])
        return [f"{path}: symbols {sorted(unknown)} are unknown to the reader"] if unknown else []
    return []


def _unreadable_record(reader: dict[str, Any], writer: dict[str, Any], path: str) -> list[str]:
    problems = []
    written = {f["name"]: f for f in writer["fields"]}
    for field in reader["fields"]:
        names = (field["name"], *field.get("aliases", ()))
        source = next((written[n] for n in names if n in written), None)
        if source is not None:
            problems += unreadable(field["type"], source["type"], f"{path}.{field['name']}")
        elif "default" not in field:
            problems.append(f"{path}.{field['name']}: not in the data, and it has no default")
    return problems


def _type(schema: Any) -> str:
    return schema["type"] if isinstance(schema, dict) else schema


def _name(schema: Any) -> str:
    return schema.get("name", _type(schema)) if isinstance(schema, dict) else str(schema)
