"""The `headwater` command: `headwater --help`.

Exit codes: 0 done · 1 a check failed · 2 wrong usage or configuration · 3 a service is not available · 130 interrupted.
What a command needs is imported when it runs, so that help answers at once.
"""

from __future__ import annotations

import importlib
import sys

import typer

from infra.cli import contracts, doctor, stack
from infra.cli.exits import guarded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Headwater: one stream of ad events, from ad request to report and model.",
    epilog="Exit codes: 0 done, 1 a check failed, 2 wrong usage or configuration, 3 a service is not available, "
    "130 interrupted. HEADWATER_PORT_BASE and HEADWATER_HOME make a second stack beside the first.",
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.logs)
app.command()(doctor.doctor)
app.command()(contracts.topics)
app.add_typer(contracts.schemas, name="schemas")

#: Commands that live with their subject: name, module, attribute (a function or a Typer), one line of help.
_ELSEWHERE = (
    (
        "demo",
        "infra.demo.cli",
        "demo",
        "Everything once: traffic, reports, training, and every count against the truth.",
    ),
    ("bench", "infra.bench.cli", "bench", "Measure ours beside the straightforward way, in pairs."),
    ("serve", "infra.cli.serve", "app", "Run one server alone, without the rest of the stack."),
    ("simulate", "infra.simulator.cli", "simulate", "Send simulated traffic to the running stack."),
    ("dlq", "infra.cli.dlq", "app", "Dead letters: count them, look at them, replay them after a fix."),
    ("keys", "infra.cli.keys", "app", "Keys of tokens, pseudonyms and doors: list them, rotate them."),
    ("replay", "infra.replay.cli", "app", "Send a real log (iPinYou, TalkingData) through the running stack."),
)


def _mount(name: str, module: str, attribute: str, text: str) -> None:
    @app.command(
        name,
        help=text,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    @guarded
    def run(context: typer.Context) -> None:
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(name)(found)
            found = single
        sys.exit(found(args=context.args, prog_name=f"headwater {name}"))


for _row in _ELSEWHERE:
    _mount(*_row)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
@guarded
def submit(context: typer.Context) -> None:
    """Submit the Flink application to the running cluster (the options of `python -m jobs.streaming submit`)."""
    from connectors.endpoints import endpoints
    from infra.local.flink import run_with_client_environment

    sys.exit(run_with_client_environment(endpoints(), ["-m", "jobs.streaming", "submit", *context.args]))


def main() -> None:
    """Entry of the `headwater` script."""
    app(prog_name="headwater")


if __name__ == "__main__":
    main()
