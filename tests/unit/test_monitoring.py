"""What Prometheus is told: the targets are the stack's own ports, and alerts are about metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.endpoints import Endpoints
from infra.local.stack import COMPONENTS
from infra.monitoring import prometheus

ROOT = Path(__file__).resolve().parents[2]
_FUNCTIONS = {"absent", "increase", "max_over_time", "sum", "by", "or", "reason", "job"}


def test_configuration_is_up_to_date() -> None:
    default = Endpoints.model_fields["port_base"].default
    assert prometheus.FILE.read_text() == prometheus.render(Endpoints(port_base=default)), (
        "run `python -m infra.monitoring.prometheus`"
    )


def test_every_target_is_a_port_of_the_stack() -> None:
    ports = {port for component in COMPONENTS.values() for port in component.ports}
    assert set(prometheus.TARGETS.values()) <= ports


def test_every_part_with_metrics_is_a_target() -> None:
    """Ports named for metrics alone; more publishers than one are started on request, and scraped on request."""
    shown = {
        port
        for component in COMPONENTS.values()
        for port in component.ports
        if port.endswith(("_metrics", "_prometheus")) and not port.startswith("flink_jm")
    }
    ours = {port for port in shown if port != "flink_metrics" and not re.fullmatch(r"publisher_\d_metrics", port)}
    assert ours <= set(prometheus.TARGETS.values())


def test_alerts_name_metrics_that_exist() -> None:
    rules = (ROOT / "infra/monitoring/alerts.yml").read_text()
    named = set(re.findall(r"[a-z]+(?:_[a-z]+)*", " ".join(re.findall(r"expr: (.*)", rules)))) - _FUNCTIONS
    declared = "\n".join(
        path.read_text() for room in ("jobs", "serving", "infra/monitoring") for path in (ROOT / room).rglob("*.py")
    )
    named -= {"m"}  # minutes
    assert len(named) >= 6
    for name in named:
        assert f'"{name}"' in declared or f'"{name.removesuffix("_total")}"' in declared, name
