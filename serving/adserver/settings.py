"""Settings of the ad server: environment variables with the prefix `HEADWATER_ADSERVER_`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.adserver.auction.pod_order import Apart
from serving.adserver.doors.player_tag import TagRules
from serving.adserver.limits.budgets import BudgetTimes
from serving.adserver.markup.unwrap import Limits as UnwrapLimits

Doubt = Literal["data_center", "bot", "address_rate", "user_rate", "inconsistent", "verdict"]


class Settings(BaseSettings):
    """Everything that can be tuned. Times of one request are in ms, lives and periods in s."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_ADSERVER_", frozen=True, extra="forbid")

    default_tmax_ms: int = Field(default=150, ge=20, description="deadline of a request that names none")
    max_tmax_ms: int = Field(default=1000, ge=20, description="longest deadline that a request may ask for")
    margin_ms: int = Field(default=20, ge=1, description="least own time kept of the deadline, after the last DSP")
    store_timeout_ms: int = Field(default=20, ge=1, description="longest wait for Valkey, per round trip")
    body_bytes: int = Field(default=1_048_576, ge=1024, description="largest request body")
    token_ttl_s: int = Field(default=86_400, ge=10, description="life of a tracker's token")
    reservation_s: int = Field(default=120, ge=1, description="life of a budget reservation without its impression")
    event_reservation_s: int = Field(
        default=900, ge=1, description="the same of a campaign that is paid by clicks or views: as late as those come"
    )
    settle_s: float = Field(
        default=15, ge=0, description="how far a partition of the stream may lag behind the newest, for releases"
    )
    budget_refresh_s: float = Field(default=1.0, gt=0, description="how often the campaigns' ledgers are settled")
    budget_expired_s: float = Field(
        default=5.0, gt=0, description="age from which what is known of budgets is not used"
    )
    pacing_s: float = Field(default=5.0, gt=0, description="how often paced campaigns are looked at")
    lease_s: float = Field(default=5.0, gt=0, description="life of a lease of budget")
    lease_wins_per_s: float = Field(default=20.0, ge=0, description="wins per second that make a lease; 0: no leases")
    stream_kept_s: float = Field(default=14_400, gt=0, description="how long wins of a stream count for its caps")
    win_open_s: int = Field(
        default=900, ge=60, description="how long a win counts as in flight; HEADWATER_STREAMING_WIN_OPEN_S beside it"
    )
    counters_refresh_s: float = Field(default=1.0, gt=0, description="age at which entity counters are read again")
    counters_expired_s: float = Field(default=60.0, gt=0, description="age from which entity counters are not used")
    files_poll_s: float = Field(default=1.0, gt=0, description="how often catalogue and bidders files are looked at")
    model_poll_s: float = Field(default=2.0, gt=0, description="how often the registry is asked for the champion")
    model_name: str = Field(default="ctr", description="registered model in MLflow")
    model_alias: str = Field(default="champion", description="alias that the server follows")
    dsp_connections: int = Field(default=64, ge=1, description="connections per DSP")
    dsp_timeout_floor_ms: int = Field(default=20, ge=1, description="least that a DSP is given, however fast it was")
    dsp_timeout_quantile: float = Field(default=0.97, gt=0, lt=1, description="share of a DSP's answers to wait for")
    dsp_timeout_headroom: float = Field(default=1.3, ge=1, description="times that quantile of its latencies")
    dsp_probe_share: float = Field(default=0.02, ge=0, le=1, description="calls that wait as long as its row allows")
    dsp_tiers_s: int = Field(default=3600, ge=1, description="period over which DSPs are judged and put into tiers")
    dsp_response_bytes: int = Field(default=262_144, ge=1024, description="largest DSP answer")
    dsp_vast_bytes: int = Field(default=131_072, ge=1024, description="largest markup of a bid, VAST or other")
    log_queue_messages: int = Field(default=50_000, ge=1, description="decisions waiting for Kafka; more are dropped")
    workers: int = Field(default=1, ge=1, le=256, description="processes behind the port")
    forwarded_hops: int = Field(
        default=0, ge=0, description="our proxies in front of the server: a tag's address is taken from X-Forwarded-For"
    )
    tag_secure: bool = Field(
        default=True, description="players of tags load nothing over plain HTTP, unless a tag says secure=0"
    )
    shed_lag_ms: float = Field(
        default=40.0, gt=0, description="delay of the event loop from which every new request is refused; less: a share"
    )
    shed_in_flight: int = Field(default=2_000, ge=1, description="requests under way, per process; more are refused")
    catalog_file: Path | None = Field(default=None, description="the catalogue; else catalog.json of the home")
    bidders_file: Path | None = Field(default=None, description="the DSPs; else bidders.json of the home")
    drain_s: float = Field(default=10.0, ge=0, description="time of SIGTERM for requests, the log and notices together")
    tcf_vendor_id: int = Field(default=0, ge=0, description="our number in the Global Vendor List; 0: not in it")
    exchange_domain: str = Field(default="headwater.example", description="our domain in supply chains (`asi`)")
    notices_allow_private: bool = Field(default=False, description="whether notices may go to private addresses")

    outside_vast_bytes: int = Field(default=262_144, ge=1024, description="largest VAST of an outside ad server")
    outside_addresses: list[str] = Field(
        default_factory=list, description="where the Ads Manager door may fetch: prefixes with scheme and host, as JSON"
    )
    outside_allow_private: bool = Field(default=False, description="fetch from private addresses: for tests")
    unwrap_s: float = Field(default=3.0, gt=0, description="longest time that following one chain of wrappers takes")
    unwrap_ttl_s: float = Field(default=300.0, gt=0, description="how long what a wrapper led to is served inline")
    unwrap_quarantine_s: float = Field(default=600.0, ge=0, description="how long a broken chain is not bought again")
    unwrap_memory_bytes: int = Field(default=33_554_432, ge=0, description="most that is kept of chains")
    challenger_alias: str = Field(default="", description="alias of a second model, for experiments")
    traffic_refused: list[Doubt] = Field(
        default=["data_center", "bot", "verdict"],
        description="doubts for which a request is refused, as JSON; the others are marked",
    )
    traffic_address_per_minute: int = Field(default=3_000, ge=1, description="requests of one address and process")
    traffic_user_per_minute: int = Field(default=300, ge=1, description="requests of one user and process")
    traffic_verdicts_s: float = Field(default=5.0, gt=0, description="how often the stream's verdicts are read")
    data_center_networks: Path | None = Field(default=None, description="the collector's file of networks")
    bot_user_agents: Path | None = Field(default=None, description="file of patterns; else our own few")
    pod_advertisers_apart: Literal["pod", "adjacent", "none"] = Field(
        default="pod", description="where two ads of one advertiser may not be: in a pod, next to each other"
    )
    pod_labels_apart: Literal["pod", "adjacent", "none"] = Field(
        default="pod", description="where two ads with one exclusion label may not be"
    )

    @property
    def tag_rules(self) -> TagRules:
        """What tags do not say themselves."""
        return TagRules(self.forwarded_hops, self.tag_secure)

    @property
    def unwrap_limits(self) -> UnwrapLimits:
        """What following a chain of wrappers may cost."""
        return UnwrapLimits(
            self.outside_vast_bytes,
            self.unwrap_s,
            self.unwrap_ttl_s,
            self.unwrap_quarantine_s,
            self.unwrap_memory_bytes,
        )

    @property
    def apart_in_pods(self) -> Apart:
        """What keeps two ads of a pod apart."""
        return Apart(self.pod_advertisers_apart, self.pod_labels_apart)

    @property
    def budget_times(self) -> BudgetTimes:
        """What the limits room reads of these."""
        return BudgetTimes(
            reservation_s=self.reservation_s,
            event_reservation_s=self.event_reservation_s,
            settle_s=self.settle_s,
            refresh_s=self.budget_refresh_s,
            expired_s=self.budget_expired_s,
            pacing_s=self.pacing_s,
            lease_s=self.lease_s,
            lease_wins_per_s=self.lease_wins_per_s,
            stream_kept_s=self.stream_kept_s,
        )
