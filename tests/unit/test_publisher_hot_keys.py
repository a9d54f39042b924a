"""Hot keys: who is spread, that an ad stays together, that a key returns, and that memory is bounded."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from zlib import crc32

import pytest

from jobs.publisher.hot_keys import HotKeys

SHARE, SALTS, WINDOW = 0.02, 8, 2_000
PARTITIONS = 4


def ads(count: int, bots: dict[str, float], users: int = 5_000, seed: int = 1) -> list[tuple[str, str]]:
    """(pseudonym, record id) of ads, of which the bots have their shares."""
    rng = random.Random(seed)
    names = [*bots, "others"]
    weights = [*bots.values(), 1 - sum(bots.values())]
    drawn = rng.choices(names, weights, k=count)
    users_of = [name if name != "others" else f"user-{rng.randrange(users)}" for name in drawn]
    return [(user, f"ad-{seed}-{number}") for number, user in enumerate(users_of)]


def largest_partition(keys: list[bytes]) -> float:
    """Share of the partition that has most, under a partitioner that hashes the key."""
    return max(Counter(crc32(b"partition" + key) % PARTITIONS for key in keys).values()) / len(keys)


def test_the_largest_partition_falls_to_nearly_its_fair_share() -> None:
    traffic = ads(40_000, {"bot": 0.35, "proxy": 0.15})
    hot = HotKeys(SHARE, SALTS, WINDOW)
    spread = [hot.key(user, ad) for user, ad in traffic]
    assert largest_partition([user.encode() for user, _ad in traffic]) > 0.40
    assert largest_partition(spread) < 0.32
    salted = {key for key in spread if b"#" in key}
    assert len(salted) == 2 * SALTS
    assert {key.partition(b"#")[0] for key in salted} == {b"bot", b"proxy"}, "nobody else is touched"
    assert hot.salted_ads == sum(b"#" in key for key in spread)


def test_a_salt_is_the_ads_own_whoever_asks_and_when() -> None:
    first, second = HotKeys(SHARE, SALTS, WINDOW), HotKeys(SHARE, SALTS, WINDOW)
    for seed, hot in ((1, first), (2, second)):
        for user, ad in ads(6_000, {"bot": 0.3}, seed=seed):
            hot.key(user, ad)
    mine = [f"ad-{n}" for n in range(500)]
    assert [first.key("bot", ad) for ad in mine] == [second.key("bot", ad) for ad in reversed(mine)][::-1]


def test_a_key_that_goes_cold_returns() -> None:
    hot = HotKeys(SHARE, SALTS, WINDOW)
    for user, ad in ads(5_000, {"bot": 0.3}):
        hot.key(user, ad)
    assert hot.hot == 1
    assert b"#" in hot.key("bot", "x")
    for user, ad in ads(2 * WINDOW + 1, {}, seed=2):
        hot.key(user, ad)
    assert hot.hot == 0
    assert hot.key("bot", "y") == b"bot"


def test_a_share_around_the_limit_does_not_change_sides_all_the_time() -> None:
    hot = HotKeys(SHARE, SALTS, WINDOW)
    keys = [hot.key(user, ad) for user, ad in ads(60_000, {"edge": SHARE})]
    sides = [b"#" in key for key in keys if key.startswith(b"edge")]
    assert any(sides)
    assert sum(a != b for a, b in pairwise(sides)) <= 6


def test_nobody_is_hot_among_equals_and_memory_is_bounded() -> None:
    hot = HotKeys(SHARE, SALTS, WINDOW)
    most = 0
    for user, ad in ads(50_000, {}, users=10**9):
        assert hot.key(user, ad) == user.encode()
        most = max(most, len(hot._counts) + len(hot._before))
    assert most <= 16 / SHARE + 4


def test_many_small_users_do_not_hide_a_large_one() -> None:
    """Pruning takes at most a quarter of the limit off a count."""
    hot = HotKeys(SHARE, SALTS, 20_000)
    traffic = ads(40_000, {"bot": 1.5 * SHARE}, users=10**9)
    keys = [hot.key(user, ad) for user, ad in traffic]
    late = [key for (user, _ad), key in zip(traffic[20_000:], keys[20_000:], strict=True) if user == "bot"]
    assert all(b"#" in key for key in late)


@pytest.mark.parametrize(("pseudonym", "expected"), [(None, b"record"), ("someone", b"someone")])
def test_first_ads_and_ads_without_a_user_have_plain_keys(pseudonym: str | None, expected: bytes) -> None:
    hot = HotKeys(SHARE, SALTS, WINDOW)
    assert {hot.key(pseudonym, "record") for _ in range(int(SHARE * WINDOW / 2) - 1)} == {expected}


def test_one_salt_means_never() -> None:
    hot = HotKeys(SHARE, 1, WINDOW)
    assert {hot.key("bot", f"ad-{n}") for n in range(10_000)} == {b"bot"}
