"""`headwater keys`: which keys an environment has, and their rotation while everything runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.exits import Exit, fail, guarded

if TYPE_CHECKING:
    from connectors.keys import KeyRing

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Keys of tokens, pseudonyms and doors: list them, rotate them."
)

_WHAT = {
    "token": "seals the tokens of trackers",
    "pseudonym": "makes pseudonyms of user ids and addresses",
    "upstream": "API key of POST /v1/logs",
    "conversions": "API key of POST /v1/conversions",
}


def _ring() -> KeyRing:
    from connectors.endpoints import endpoints
    from connectors.keys import KeyRing

    return KeyRing.load(endpoints().secrets)


@app.command("list")
@guarded
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Key ids by purpose, never the keys: the one in use, and the earlier ones that are still accepted."""
    from connectors.keys import PURPOSES

    ring = _ring()
    ids = {purpose: ring.ids(purpose) for purpose in PURPOSES}
    if as_json:
        print(json.dumps({purpose: {"current": found[-1], "accepted": found[:-1]} for purpose, found in ids.items()}))
        return
    for purpose, (*accepted, current) in ids.items():
        also = f", still accepted: {', '.join(map(str, accepted))}" if accepted else ""
        print(f"{purpose:<12} {current}{also}  ({_WHAT[purpose]})")


@app.command()
@guarded
def rotate(
    purpose: Annotated[str, typer.Argument(help=f"{', '.join(_WHAT)}.", show_default=False)],
    keep: Annotated[int, typer.Option(help="Keys that are held after it, the new one included.", min=1)] = 2,
) -> None:
    """Make a new key. All running processes use it within a second; what earlier kept keys made is still accepted.

    Leave at least a token's life between two rotations of `token`. A rotation of `pseudonym` gives every user a new
    pseudonym: their counters and caps start again under it.
    """
    from connectors.keys import PURPOSES

    if purpose not in PURPOSES:
        raise fail(f"no such purpose: {purpose}; there are {', '.join(PURPOSES)}", Exit.MISUSED)
    ring = _ring()
    before = set(ring.ids(purpose))
    key_id = ring.rotate(purpose, keep)
    retired = sorted(before - set(ring.ids(purpose)))
    also = f"; refused from now on: {', '.join(map(str, retired))}" if retired else ""
    print(f"{purpose}: key {key_id} is in use{also}")
