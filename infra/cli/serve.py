"""`headwater serve adserver`: the ad server alone, from a catalogue file and a bidders file.

What it can't do without is Valkey, where wins are paid for and written down. When none answers at the configured
address, one of its own is started in the home folder and ends with the server. In it nobody tells which wins were
shown, so each win counts as spent: less may be shown than the budget allows, never more. Without Kafka decisions are
not logged, without MLflow click rates stand in for the model; each is a numbered reason in the answers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.exits import Exit, fail, guarded

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Run one server.")

_VALKEY_START_S = 15.0
#: What the marker says in a Valkey that no stream writes to.
_ALONE = b"standalone"


@app.callback()
def _servers() -> None:
    """Run one server alone, without the rest of the stack."""


@app.command()
@guarded
def adserver(
    catalog: Annotated[
        Path | None,
        typer.Option(help="Campaigns, creatives, placements, deals.", exists=True, dir_okay=False, resolve_path=True),
    ] = None,
    bidders: Annotated[
        Path | None, typer.Option(help="One row per DSP.", exists=True, dir_okay=False, resolve_path=True)
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes behind the port.", min=1)] = 1,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; Valkey's own is 17 below.", min=1044, max=65020)
    ] = None,
) -> None:
    """Run the ad server alone until it is told to stop. It reads its files again when they change."""
    if catalog is None and bidders is None:
        raise fail("nothing to serve: give --catalog, --bidders or both", Exit.MISUSED)
    from connectors.endpoints import PORT_OFFSETS, endpoints
    from schemas.catalog_text import load_bidders, load_catalog
    from schemas.errors import ConfigError

    if port is not None:
        os.environ["HEADWATER_PORT_BASE"] = str(port - PORT_OFFSETS["adserver"])
        endpoints.cache_clear()
    where = endpoints()
    try:
        if catalog is not None:
            load_catalog(catalog.read_text())
        if bidders is not None:
            load_bidders(bidders.read_text())
    except UnicodeDecodeError as e:
        raise ConfigError(f"not UTF-8: {e}") from e
    where.home.mkdir(parents=True, exist_ok=True)
    settings = {"HEADWATER_ADSERVER_WORKERS": str(workers)}
    for name, path in (("CATALOG", catalog), ("BIDDERS", bidders)):
        chosen = path or where.home / f"none-{name.lower()}.json"
        if path is None:
            chosen.write_text("{}")
        settings[f"HEADWATER_ADSERVER_{name}_FILE"] = str(chosen)
    with _valkey():
        server = subprocess.Popen([sys.executable, "-m", "serving.adserver"], env={**os.environ, **settings})
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.send_signal(signal.SIGTERM)
            server.wait()
            code = 0
    if code:
        raise fail(f"the ad server ended with code {code}", Exit.CHECK_FAILED)


@contextmanager
def _valkey() -> Iterator[None]:
    """A Valkey that answers: the configured one, else one of our own for as long as it is needed."""
    from connectors.endpoints import endpoints
    from connectors.valkey import Valkey
    from infra.local.control import StartFailed
    from infra.local.platform import VALKEY
    from schemas.errors import ConnectorError
    from schemas.redis_layout import MATERIALIZER_MARKER

    where = endpoints()
    try:
        with Valkey(where.valkey_url, timeout_s=1.0) as found:
            found.pipeline([("PING",)])
    except ConnectorError:
        pass
    else:
        yield
        return
    if VALKEY.prepare is not None:
        VALKEY.prepare(where)
    with (where.home / "valkey" / "log").open("ab") as log:
        # in a group of its own: Ctrl-C is for the server, which still writes down what it has won
        process = subprocess.Popen(VALKEY.command(where), stdout=log, stderr=log, start_new_session=True)
    print(f"no Valkey at {where.valkey_url}: one of its own runs; every win counts as spent", file=sys.stderr)
    try:
        ends_s = time.monotonic() + _VALKEY_START_S
        while True:
            try:
                with Valkey(where.valkey_url, timeout_s=1.0) as own:
                    own.pipeline([("SET", MATERIALIZER_MARKER, _ALONE)])
                break
            except ConnectorError as e:
                if process.poll() is not None or time.monotonic() > ends_s:
                    raise StartFailed(f"valkey did not start: {where.home / 'valkey' / 'log'}") from e
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)
