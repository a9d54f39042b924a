"""The `headwater` command: `headwater --help`.

Exit codes: 0 done · 1 a check failed · 2 wrong usage or configuration · 3 a service is not available · 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer

from connectors.endpoints import endpoints
from infra.local import control
from infra.local.stack import COMPONENTS

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Headwater.")


def _names(only):
    return [n.strip() for n in only.split(",") if n.strip()] if only else list(COMPONENTS)


@app.command()
def up(only: Annotated[Optional[str], typer.Option()] = None) -> None:
    state = control.up(endpoints(), COMPONENTS, _names(only))
    for n, r in state.components.items():
        print(n, r.state, r.pid, r.port, (r.ready_ms or 0) - state.started_ms)


@app.command()
def down(only: Annotated[Optional[str], typer.Option()] = None, wipe: bool = False) -> None:
    control.down(endpoints(), _names(only) if only else None)
    if wipe:
        control.wipe(endpoints())


def main():
    app()


if __name__ == "__main__":
    sys.exit(main())
