"""The simulated world: who watches, who publishes, who advertises, and what would make them click.

One seed gives one world, byte for byte: users with tastes and hours, publishers with placements, advertisers with
campaigns, line items, creatives, budgets and caps. The catalogue and the bidders file are in schemas/catalog.py's
form; the ground truth (tastes, appeals) stays here, and no part of the platform can read it.
Clicks are far more frequent than in life (about 8 %), so that a minute of traffic holds enough of them to learn from.

Run: python -m infra.simulator.world --ensure [--seed N]
(writes <home>/catalog.json, bidders.json and partners.json when absent)
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from connectors.endpoints import Endpoints, endpoints
from infra.simulator import market
from schemas.catalog import Bidder, Bidders, Catalog, Partner, Partners
from schemas.catalog_text import dump, load_bidders, load_catalog, load_partners

DEFAULT_SEED = 7
DEFAULT_USERS = 600

#: Share of users who opted out, and of users that are bots.
OPTED_OUT_SHARE = 0.08
BOT_SHARE = 0.02

COUNTRIES = (
    ("US", "CA"),
    ("US", "NY"),
    ("US", "TX"),
    ("GB", "LND"),
    ("DE", "BE"),
    ("FR", "IDF"),
    ("CA", "ON"),
)
PLATFORMS = {
    "ctv": ("tvos", "roku", "tizen"),
    "phone": ("ios", "android"),
    "tablet": ("ipados", "android"),
    "desktop": ("macos", "windows"),
}
DEVICE_SHARES = {"ctv": 0.4, "phone": 0.3, "tablet": 0.1, "desktop": 0.2}


@dataclass(frozen=True, slots=True)
class User:
    """One viewer. `tastes`: content category -> log-odds added to a click; `activity`: relative number of visits.

    `active_from_hour` begins a window of `ACTIVE_HOURS` hours (UTC) in which most visits fall.
    """

    id: str
    household_ip: str
    device_type: str
    platform: str
    country: str
    region: str
    opted_out: bool
    bot: bool
    activity: float
    active_from_hour: int
    tastes: dict[str, float]


ACTIVE_HOURS = 10
OFF_HOURS_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is fixed before the first request. `appeal`: creative id -> log-odds added to a click."""

    seed: int
    catalog: Catalog
    users: tuple[User, ...]
    appeal: dict[str, float]

    def visit_weights(self, hour: int) -> list[float]:
        """Relative chance of each user to be the next visitor at an hour of the day (UTC)."""
        return [
            u.activity * (1.0 if (hour - u.active_from_hour) % 24 < ACTIVE_HOURS else OFF_HOURS_WEIGHT)
            for u in self.users
        ]


def build_world(seed: int = DEFAULT_SEED, users: int = DEFAULT_USERS) -> World:
    """The world of a seed: the same arguments give an equal world.

    Example:
    >>> build_world(1, 5) == build_world(1, 5)
    True
    """
    catalog, appeal = market.build_market(random.Random(f"{seed}:market"))
    return World(seed, catalog, _people(random.Random(f"{seed}:people"), users), appeal)


def _people(rng: random.Random, count: int) -> tuple[User, ...]:
    people = []
    for i in range(count):
        device = rng.choices(list(DEVICE_SHARES), list(DEVICE_SHARES.values()))[0]
        country, region = rng.choice(COUNTRIES)
        bot = rng.random() < BOT_SHARE
        people.append(
            User(
                id=f"user-{i:05d}",
                household_ip=f"198.18.{rng.randrange(count // 3 + 1) // 250}.{rng.randrange(1, 251)}",
                device_type="desktop" if bot else device,
                platform="windows" if bot else rng.choice(PLATFORMS[device]),
                country=country,
                region=f"{country}-{region}",
                opted_out=not bot and rng.random() < OPTED_OUT_SHARE,
                bot=bot,
                activity=round(rng.paretovariate(1.6), 4),
                active_from_hour=rng.randrange(24),
                tastes={c: round(rng.gauss(0.0, 0.9), 4) for c in market.CONTENT_CATEGORIES},
            )
        )
    return tuple(people)


def simulated_bidders(dsps_url: str) -> Bidders:
    """The bidders file of the simulated DSPs at an address."""
    return Bidders(
        version=1,
        bidders=[
            Bidder(id=d, endpoint=f"{dsps_url}/dsp/{d}/bid", seat_ids=[f"{d}-seat-1", f"{d}-seat-2"])
            for d in market.DSP_IDS
        ],
    )


def simulated_partners(dsps_url: str) -> Partners:
    """The partners file of the simulated verification and measurement partners, which listen where the DSPs do."""
    authority = dsps_url.partition("://")[2]
    return Partners(1, [Partner(p, [f"{authority}/partner/{p}"], max_per_s=500) for p in market.PARTNER_EVENTS])


def with_trackers(catalog: Catalog, dsps_url: str) -> Catalog:
    """The catalogue with the simulated partners' trackers on every creative that is sold."""
    trackers: dict[str, list[str]] = {}
    for partner, events in market.PARTNER_EVENTS.items():
        for event in events:
            url = f"{dsps_url}/partner/{partner}/{event}?ad=[ADSERVINGID]&t=[TIMESTAMP]&cb=[CACHEBUSTING]&ip=[DEVICEIP]"
            trackers.setdefault(event, []).append(url)
    sold = [c if c.line_item_id == market.HOUSE_LINE else replace(c, trackers=trackers) for c in catalog.creatives]
    return replace(catalog, creatives=sold)


def ensure_files(ends: Endpoints, seed: int = DEFAULT_SEED) -> list[Path]:
    """Writes the files that are absent; gives back what was written.

    Files that name the simulated DSPs and partners at another address follow the port base; others are kept.
    """
    ends.home.mkdir(parents=True, exist_ok=True)
    written = []
    catalog = with_trackers(build_world(seed).catalog, ends.dsps_url)
    if not ends.catalog_path.exists() or _only_trackers_differ(ends.catalog_path.read_text(), catalog):
        _write(ends.catalog_path, dump(catalog))
        written.append(ends.catalog_path)
    partners = simulated_partners(ends.dsps_url)
    if not ends.partners_path.exists() or _only_addresses_differ(ends.partners_path.read_text(), partners):
        _write(ends.partners_path, dump(partners))
        written.append(ends.partners_path)
    wanted = simulated_bidders(ends.dsps_url)
    path = ends.bidders_path
    if not path.exists() or _only_address_differs(path.read_text(), wanted):
        _write(path, dump(wanted))
        written.append(path)
    return written


def _only_address_differs(text: str, wanted: Bidders) -> bool:
    present = load_bidders(text)
    return present != wanted and [(b.id, b.seat_ids) for b in present.bidders] == [
        (b.id, b.seat_ids) for b in wanted.bidders
    ]


def _only_trackers_differ(text: str, wanted: Catalog) -> bool:
    present = load_catalog(text)
    return present != wanted and _without_trackers(present) == _without_trackers(wanted)


def _without_trackers(catalog: Catalog) -> Catalog:
    return replace(catalog, creatives=[replace(c, trackers={}) for c in catalog.creatives])


def _only_addresses_differ(text: str, wanted: Partners) -> bool:
    present = load_partners(text)
    return present != wanted and [p.id for p in present.partners] == [p.id for p in wanted.partners]


def _write(path: Path, text: str) -> None:
    """Atomically: readers reload these files whenever they change."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.simulator.world", description="Write the world's files.")
    parser.add_argument("--ensure", action="store_true", help="write what is absent (the only mode)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    arguments = parser.parse_args(argv)
    if not arguments.ensure:
        parser.error("nothing to do: give --ensure")
    for path in ensure_files(endpoints(), arguments.seed):
        print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
