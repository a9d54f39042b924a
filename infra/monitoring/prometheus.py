"""What Prometheus scrapes of the local stack, from the addresses that everything else uses.

Run: `python -m infra.monitoring.prometheus` rewrites prometheus.yml for the default ports; with `HEADWATER_PORT_BASE`
set, `--stdout` prints it for a stack elsewhere. A test fails when the file is out of date.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from connectors.endpoints import Endpoints, endpoints

FILE = Path(__file__).with_name("prometheus.yml")

#: Scrape job and the named port on which it answers `/metrics`.
TARGETS: dict[str, str] = {
    "adserver": "adserver",
    "collector": "collector",
    "publisher": "publisher_metrics",
    "materializer": "materializer_metrics",
    "vendors": "vendors_metrics",
    "lake": "lake_metrics",
    "flink": "flink_prometheus",
}
SCRAPE_INTERVAL_S = 15


def addresses(where: Endpoints) -> dict[str, str]:
    """host:port by scrape job."""
    return {job: f"{where.host}:{where.port(port)}" for job, port in TARGETS.items()}


def render(where: Endpoints) -> str:
    """Prometheus's configuration."""
    jobs = "\n".join(
        f"  - job_name: {job}\n    static_configs:\n      - targets: ['{address}']"
        for job, address in addresses(where).items()
    )
    return (
        "# Made by `python -m infra.monitoring.prometheus`; do not edit.\n"
        f"global:\n  scrape_interval: {SCRAPE_INTERVAL_S}s\n"
        f"rule_files: [alerts.yml]\nscrape_configs:\n{jobs}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stdout", action="store_true", help="print it for the endpoints of the environment")
    if parser.parse_args().stdout:
        print(render(endpoints()), end="")
    else:
        FILE.write_text(render(Endpoints(port_base=Endpoints.model_fields["port_base"].default)))


if __name__ == "__main__":
    main()
