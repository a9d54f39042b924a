"""The notebook runs as it is, from top to bottom, on the stack, and finds that Druid and the lake agree."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from connectors.druid import DruidClient
from connectors.endpoints import Endpoints
from schemas.campaign_metrics import DATASOURCE

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "funnel_and_reach.ipynb"


def test_no_output_is_committed():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, path.name


def test_the_notebook_runs_on_the_stacks_data(stack: Endpoints, monkeypatch: pytest.MonkeyPatch):
    with DruidClient.of(stack) as druid:
        assert druid.sql(f'SELECT 1 FROM "{DATASOURCE}" LIMIT 1'), "the stack has had no traffic yet"
    monkeypatch.setenv("HEADWATER_HOME", str(stack.home))
    monkeypatch.setenv("HEADWATER_PORT_BASE", str(stack.port_base))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute(env=dict(os.environ))
    printed = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "impressions led to" in printed
    assert "agree on every step" in printed
