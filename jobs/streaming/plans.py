"""What the state of the stream jobs looks like, as text that is kept in git: `plans/<deployment>.txt`.

A savepoint fits a job if every operator with state finds its own in it. Operators are named by their number and kind
in the plan (`table.exec.uid.generation`), so the text lists all of them, with what those with state key by and keep.
Made from the compiled plan (COMPILE PLAN), without what changes no state: addresses, expressions of stateless
operators, times to live.

The text is compared, and not the plan executed: a compiled plan of one job is 60 KB and more of JSON, most of it
schemas and addresses, and would have to be compiled anew for every setting; the text says in a few lines what a
change of it means to whoever has a savepoint.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from jobs.streaming.application import Application

#: What to do about a change, for whoever reads that there is one.
WAY_OVER = """A savepoint of before does not fit. If the change is meant:
  1. python -m jobs.streaming plans --write, and say it in CHANGELOG.md
  2. when it is deployed: drain, savepoint --stop, then either
     submit --from PATH --allow-lost-state   when all that changed is that operators are gone from the end of the list
     submit --fresh                          else: flags of events, lives of ads and counters begin anew; rebuild jobs
                                             of absolute values with --start earliest-offset"""
#: Operators that keep something about a topic: how far it is read, which transactions are open.
_OF_A_TABLE = re.compile("source-scan|sink")
_TABLE = re.compile(r"default_database[.,] ?(\w+)")
#: Operators that keep rows, and their parameters that say which.
_KEEPS_ROWS = re.compile("aggregate|deduplicate|rank|join|match|over|normalize|window|temporal")
_LAYOUT = re.compile(r"(?:groupBy|partitionBy|orderBy|window|joinType)=\[[^\]]*\]")
_TYPES = (("VARCHAR(2147483647)", "STRING"), ("VARBINARY(2147483647)", "BYTES"))


def text_of(application: Application) -> str:
    """The state of one deployment. Starts Flink's compiler (several seconds). Shape: a line per operator."""
    statements = application.session({}).create_statement_set()
    for statement in application.statements()[1]:
        statements.add_insert_sql(statement)
    return layout(json.loads(statements._j_statement_set.compilePlan().asJsonString()))


def layout(plan: dict[str, Any]) -> str:
    """The text of a compiled plan.

    Example:
    >>> print(layout({"nodes": [
    ...     {"id": 1, "type": "stream-exec-calc_1", "description": "Calc(select=[a])"},
    ...     {"id": 2, "type": "stream-exec-group-aggregate_1", "description": "GroupAggregate(groupBy=[a], select=[a])",
    ...      "state": [{"name": "groupAggregateState"}], "outputType": "ROW<`a` INT>"}], "edges": []}))
    1 calc_1
    2 group-aggregate_1 groupBy=[a] state=groupAggregateState row=ROW<`a` INT>
    """
    lines = []
    number = {node["id"]: place for place, node in enumerate(plan["nodes"], 1)}
    inputs: dict[int, list[int]] = {}
    for edge in plan["edges"]:
        inputs.setdefault(edge["target"], []).append(number[edge["source"]])
    for node in plan["nodes"]:
        kind = node["type"].removeprefix("stream-exec-")
        parts = [str(number[node["id"]]), kind]
        if read := inputs.get(node["id"]):
            parts.append("of " + ",".join(map(str, read)))
        if "uid" in node:  # a Java function: its keys; what it keeps is declared in its class
            parts += [f"uid={node['uid']}", f"keys={_partition_keys(node)}"]
        elif _OF_A_TABLE.search(kind):  # offsets or transactions
            parts += _TABLE.findall(node["description"])
        elif _KEEPS_ROWS.search(kind):
            parts += _LAYOUT.findall(node["description"])
            parts += [f"state={state['name']}" for state in node.get("state") or ()]
            parts.append(f"row={_row(node.get('outputType'))}")
        lines.append(" ".join(parts))
    return "\n".join(lines)


def differences(before: str, after: str) -> list[str]:
    """What a change of the text means for a savepoint, operator by operator; empty when it still fits.

    Example:
    >>> differences("1 calc_1\\n2 rank_1 row=A", "1 calc_1\\n2 rank_1 row=B")
    ['operator 2 (rank_1): was `rank_1 row=A`, is `rank_1 row=B`']
    """
    old, new = (dict(line.split(" ", 1) for line in text.splitlines()) for text in (before, after))
    found = []
    for number in sorted({*old, *new}, key=int):
        was, now = old.get(number, "absent"), new.get(number, "absent")
        if was != now:
            found.append(
                f"operator {number} ({(now if now != 'absent' else was).split(' ')[0]}): was `{was}`, is `{now}`"
            )
    return found


def kept(name: str) -> str:
    """The text in git of one deployment; '' when there is none."""
    file = resources.files("jobs.streaming").joinpath("plans", f"{name}.txt")
    return file.read_text().rstrip("\n") if file.is_file() else ""


def write(name: str, text: str) -> None:
    """Keeps a text as the one to compare with."""
    folder = Path(__file__).with_name("plans")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_text(text + "\n")


def _partition_keys(node: dict[str, Any]) -> list[int]:
    return [key for operand in node["functionCall"]["operands"] for key in operand.get("partitionKeys", ())]


def _row(output_type: Any) -> str:
    """A row type in SQL's words, whichever of its two forms the plan has."""
    if isinstance(output_type, dict):
        fields = (f"`{field['name']}` {_row(field['fieldType'])}" for field in output_type.get("fields", ()))
        output_type = f"ROW<{', '.join(fields)}>" if "fields" in output_type else str(output_type.get("type"))
    for long, short in _TYPES:
        output_type = str(output_type).replace(long, short)
    return str(output_type)
