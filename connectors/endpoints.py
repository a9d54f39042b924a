"""Where everything listens and where everything is kept: the one place that knows a port or a data folder.

Every process reads the same frozen `Endpoints`; the local stack starts its parts on the ports that it names.
Ports are `port_base` plus a fixed offset, so that several stacks can run side by side on one machine:
`HEADWATER_PORT_BASE=20000 HEADWATER_HOME=/tmp/other headwater up`.
In production each address is set on its own (`HEADWATER_KAFKA_BOOTSTRAP=...`) and the ports do not matter.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

#: Offset of each local port from `port_base`. Names are the local stack's component names.
PORT_OFFSETS: dict[str, int] = {
    "kafka": 0,
    "kafka_controller": 1,
    "registry": 2,
    "valkey": 3,
    "flink_rest": 4,
    "flink_rpc": 5,
    "flink_metrics": 6,
    "mlflow": 7,
    "flink_jm_metrics": 8,
    "flink_blob": 9,
    "druid_coordinator": 10,
    "druid_broker": 11,
    "druid_historical": 12,
    "druid_indexer": 13,
    "zookeeper": 14,
    "druid_metadata": 15,
    "registry_management": 16,
    "adserver": 20,
    "collector": 21,
    "reporting": 22,
    "dsps": 23,
    "publisher_metrics": 30,
    "materializer_metrics": 31,
    "lake_metrics": 32,
    "vendors_metrics": 33,
    "flink_prometheus": 34,
    "publisher_2_metrics": 36,
    "publisher_3_metrics": 37,
    "publisher_4_metrics": 38,
}


class Endpoints(BaseSettings):
    """Addresses and folders. Every field can be set from the environment with the prefix `HEADWATER_`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", frozen=True, extra="ignore")

    home: Path = Field(default=Path("run"), description="folder of all local data, logs, secrets; survives down/up")
    host: str = Field(default="127.0.0.1", description="address that local services bind to")
    port_base: int = Field(default=19000, ge=1024, le=65000, description="first of the local ports")

    kafka_bootstrap: str = ""
    registry_url: str = ""
    valkey_url: str = ""
    flink_rest_url: str = ""
    mlflow_url: str = ""
    druid_coordinator_url: str = ""
    druid_broker_url: str = ""
    adserver_url: str = ""
    collector_url: str = ""
    reporting_url: str = ""
    dsps_url: str = ""
    lake_uri: str = Field(default="", description="root of the Delta tables")

    def port(self, name: str) -> int:
        """Port of a local part. Errors: KeyError for a name that is not in `PORT_OFFSETS`."""
        return self.port_base + PORT_OFFSETS[name]

    def model_post_init(self, _context: object) -> None:
        defaults = {
            "kafka_bootstrap": f"{self.host}:{self.port('kafka')}",
            "registry_url": f"http://{self.host}:{self.port('registry')}/apis/ccompat/v7",
            "valkey_url": f"redis://{self.host}:{self.port('valkey')}/0",
            "flink_rest_url": f"http://{self.host}:{self.port('flink_rest')}",
            "mlflow_url": f"http://{self.host}:{self.port('mlflow')}",
            "druid_coordinator_url": f"http://{self.host}:{self.port('druid_coordinator')}",
            "druid_broker_url": f"http://{self.host}:{self.port('druid_broker')}",
            "adserver_url": f"http://{self.host}:{self.port('adserver')}",
            "collector_url": f"http://{self.host}:{self.port('collector')}",
            "reporting_url": f"http://{self.host}:{self.port('reporting')}",
            "dsps_url": f"http://{self.host}:{self.port('dsps')}",
            "lake_uri": str(self.home.absolute() / "lake"),
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)  # frozen after this: the one time that a default is filled in
        object.__setattr__(self, "home", self.home.absolute())

    @property
    def secrets(self) -> Path:
        """Folder of generated keys, mode 0700; the files in it are 0600."""
        return self.home / "secrets"

    @property
    def catalog_path(self) -> Path:
        """The catalogue (campaigns, creatives, placements) that the ad server and the reporting API read."""
        return self.home / "catalog.json"

    @property
    def partners_path(self) -> Path:
        """One row per verification or measurement partner that the event handler knows more of than its address."""
        return self.home / "partners.json"

    @property
    def bidders_path(self) -> Path:
        """One row per DSP that the ad server may call."""
        return self.home / "bidders.json"


@cache
def endpoints() -> Endpoints:
    """The process's endpoints, read from the environment once."""
    return Endpoints()
