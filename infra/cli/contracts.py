"""`headwater topics` and `headwater schemas`: what is declared, what exists, and whether a change breaks somebody."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from infra.cli.exits import Exit, guarded

schemas = typer.Typer(no_args_is_help=True, help="Value schemas: declared and registered.")


@guarded
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create those that are missing.")] = False,
) -> None:
    """Declared topics beside those that exist. Exit code 1 when they differ."""
    from rich.console import Console
    from rich.table import Table

    from connectors.kafka import admin, create_topics, existing_topics
    from schemas.topics import BY_NAME, TOPICS

    client = admin()
    if create:
        for name in create_topics(TOPICS, client):
            print(f"created {name}")
    existing = existing_topics(client)
    table = Table(box=None, pad_edge=False)
    for column in ("topic", "partitions", "kept", "schema", "state"):
        table.add_column(column)
    wrong = False
    for topic in TOPICS:
        found = existing.get(topic.name)
        if found is None:
            state = "[red]missing[/] (headwater topics --create)"
        elif found != topic.partitions:
            state = f"[red]has {found} partitions[/]"
        else:
            state = "[green]ok[/]"
        wrong |= found != topic.partitions
        kept = "compacted" if topic.retention_ms is None else f"{topic.retention_ms / 86_400_000:.0f} d"
        table.add_row(topic.name, str(topic.partitions), kept, topic.schema or "", state)
    for name in sorted(existing.keys() - BY_NAME.keys()):
        table.add_row(name, str(existing[name]), "", "", "[yellow]not declared[/]")
    Console().print(table)
    if wrong:
        raise typer.Exit(Exit.CHECK_FAILED)


@schemas.command("list")
@guarded
def list_subjects() -> None:
    """Registered subjects with their rule, newest id and number of versions."""
    from rich.console import Console
    from rich.table import Table

    from connectors.registry import SchemaRegistry
    from schemas.topics import TOPICS

    registry = SchemaRegistry()
    declared = {topic.subject: topic for topic in TOPICS if topic.schema}
    table = Table(box=None, pad_edge=False)
    for column in ("subject", "schema", "rule", "id", "versions"):
        table.add_column(column)
    existing = registry.subjects()
    for subject in sorted({*existing, *declared}):
        schema = declared[subject].schema if subject in declared else "[yellow]not declared[/]"
        if subject in existing:
            schema_id, _ = registry.latest(subject)
            rule = registry.compatibility(subject) or ""
            table.add_row(subject, schema, rule, str(schema_id), str(len(registry.versions(subject))))
        else:
            table.add_row(subject, schema, "[red]not registered[/]", "", "")
    Console().print(table)


@schemas.command()
@guarded
def register() -> None:
    """Register every declared schema under its rule. A change that breaks the rule is refused (exit code 1)."""
    from connectors.registry import SchemaRegistry
    from infra.contracts import register_subjects

    for subject, schema_id in register_subjects(SchemaRegistry()).items():
        print(f"{subject} {schema_id}")


@schemas.command()
@guarded
def check() -> None:
    """Compare every declared schema with every registered version, in words: who must roll out first.

    Exit code 1 when a change breaks its subject's rule.
    """
    from fastavro import parse_schema

    from connectors.registry import NotRegistered, SchemaRegistry
    from schemas.codec import schema_text
    from schemas.compat import compare
    from schemas.topics import TOPICS

    registry = SchemaRegistry()
    broken = False
    for topic in TOPICS:
        if topic.schema is None:
            continue
        try:
            numbers = registry.versions(topic.subject)
        except NotRegistered:
            print(f"{topic.subject}: new, not registered yet")
            continue
        new = json.loads(schema_text(topic.schema))
        changed = False
        for number in numbers:
            old = json.loads(registry.version(topic.subject, number))
            if parse_schema(old) == parse_schema(new):  # the registry spells names its own way
                continue
            changed = True
            verdict = compare(old, new)
            allowed = verdict.full or (topic.compatibility != "FULL_TRANSITIVE" and not verdict.breaks_new_readers)
            broken |= not allowed
            print(f"{topic.subject} against version {number}: {'ok' if allowed else 'REFUSED'}: {verdict.words}")
        if not changed:
            print(f"{topic.subject}: unchanged")
    if broken:
        raise typer.Exit(Exit.CHECK_FAILED)
