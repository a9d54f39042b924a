"""The simulated world: equal for equal seeds, valid as a catalogue, and its files are written only when absent."""

from __future__ import annotations

from pathlib import Path

from connectors.endpoints import Endpoints
from infra.simulator.market import HOUSE, PROBE_PLACEMENT
from infra.simulator.world import build_world, ensure_files
from schemas.catalog_text import dump, load_bidders, load_catalog


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = build_world(3), build_world(3)
    assert dump(first.catalog) == dump(second.catalog)
    assert first.users == second.users and first.appeal == second.appeal
    assert dump(build_world(4).catalog) != dump(first.catalog)


def test_the_market_loads_as_a_catalogue_and_has_what_the_demo_needs() -> None:
    world = build_world()
    catalog = load_catalog(dump(world.catalog))
    assert catalog == world.catalog
    assert {"cpm", "cpc", "house"} == {item.pricing for item in catalog.line_items}
    assert {"video", "banner"} == {creative.format for creative in catalog.creatives}
    assert any(c.frequency_caps for c in catalog.campaigns) and any(c.id == HOUSE for c in catalog.campaigns)
    assert PROBE_PLACEMENT in {p.id for p in catalog.placements}
    assert set(world.appeal) == {c.id for c in catalog.creatives}
    budgets = [c.daily_budget_micros for c in catalog.campaigns if c.id != HOUSE]
    assert min(budgets) < 1_000_000 < max(budgets), "some budgets run out within a demo, most do not"


def test_users_visit_mostly_in_their_hours() -> None:
    world = build_world(users=50)
    user = world.users[0]
    on = world.visit_weights(user.active_from_hour)[0]
    off = world.visit_weights((user.active_from_hour + 12) % 24)[0]
    assert on == user.activity and off < on / 2


def test_files_are_written_once_and_addresses_follow_the_ports(tmp_path: Path) -> None:
    ends = Endpoints(home=tmp_path, port_base=20_000)
    assert len(ensure_files(ends)) == 3
    moved = Endpoints(home=tmp_path, port_base=21_000)
    assert ensure_files(moved) == [moved.catalog_path, moved.partners_path, moved.bidders_path]
    trackers = [u for c in load_catalog(ends.catalog_path.read_text()).creatives for u in c.trackers.get("click", ())]
    assert trackers and all(":21023/" in url for url in trackers)
    ends.catalog_path.write_text(ends.catalog_path.read_text().replace("House ads", "Ours"))
    assert ensure_files(moved) == [], "an edited catalogue is kept"
    assert all(":21023/" in b.endpoint for b in load_bidders(moved.bidders_path.read_text()).bidders)


def test_a_real_bidders_file_is_kept(tmp_path: Path) -> None:
    ends = Endpoints(home=tmp_path)
    ensure_files(ends)
    own = '{"version": 1, "bidders": [{"id": "partner", "endpoint": "https://partner.example/bid"}]}'
    ends.bidders_path.write_text(own)
    assert ensure_files(ends) == []
    assert ends.bidders_path.read_text() == own


def test_every_user_has_a_household_and_tastes() -> None:
    users = build_world(users=200).users
    assert all(u.tastes and u.household_ip.startswith("198.18.") for u in users)
    assert not any(u.bot and u.opted_out for u in users)
    assert any(u.bot for u in users) and any(u.opted_out for u in users)
    assert len({u.household_ip for u in users}) < len(users), "some share a household"
