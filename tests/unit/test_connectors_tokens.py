"""Tokens and keys: what was minted opens, anything else does not, and a rotation needs no restart."""

from __future__ import annotations

import hmac
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import keys
from connectors.keys import PURPOSES, KeyRing
from connectors.tokens import TOKEN_BYTES, TOKEN_CHARACTERS, TokenClaims, TokenMinter, TokenOpener
from schemas.errors import ConfigError, RejectReason, TokenError
from schemas.ids import encode_id, pseudonym

RECORD_ID = bytes(range(16))


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.load(tmp_path_factory.mktemp("home") / "secrets")


@pytest.fixture
def own_ring(tmp_path: Path) -> KeyRing:
    return KeyRing.load(tmp_path / "secrets")


def refused(opener: TokenOpener, token: str) -> RejectReason:
    with pytest.raises(TokenError) as caught:
        opener.open(token)
    return caught.value.reason


@given(
    record_id=st.binary(min_size=16, max_size=16),
    code=st.integers(0, 255),
    ordinal=st.integers(0, 255),
    issued_s=st.integers(0, 2**31),
    ttl_s=st.integers(0, 2**31 - 1),
)
def test_what_was_minted_opens(
    ring: KeyRing, record_id: bytes, code: int, ordinal: int, issued_s: int, ttl_s: int
) -> None:
    token = TokenMinter(ring).mint(record_id, code, ordinal, issued_s, ttl_s)
    assert len(token) == TOKEN_CHARACTERS <= 120
    assert TokenOpener(ring).open(token) == TokenClaims(record_id, code, ordinal, issued_s, issued_s + ttl_s)


@given(events=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=30))
def test_tokens_minted_together_open_one_by_one(ring: KeyRing, events: list[tuple[int, int]]) -> None:
    opener = TokenOpener(ring)
    tokens = TokenMinter(ring).mint_all(RECORD_ID, events, 1_000, 60)
    assert [opener.open(t) for t in tokens] == [TokenClaims(RECORD_ID, *event, 1_000, 1_060) for event in events]
    assert len(set(tokens)) == len(tokens)  # each has a nonce of its own, also for the same event


@given(bit=st.integers(0, TOKEN_BYTES * 8 - 1))
def test_any_flipped_bit_is_refused(ring: KeyRing, bit: int) -> None:
    import base64

    token = TokenMinter(ring).mint(RECORD_ID, 1, 0, 1_700_000_000, 3_600)
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[bit // 8] ^= 1 << bit % 8
    reason = refused(TokenOpener(ring), base64.urlsafe_b64encode(raw).decode())
    if bit // 8 == 0:
        assert reason is RejectReason.TOKEN_MALFORMED
    elif bit // 8 in (1, 2):
        assert reason is RejectReason.TOKEN_UNKNOWN_KEY
    else:
        assert reason is RejectReason.TOKEN_FORGED


@given(position=st.integers(0, TOKEN_CHARACTERS - 1), character=st.characters())
def test_any_other_character_is_refused(ring: KeyRing, position: int, character: str) -> None:
    token = TokenMinter(ring).mint(RECORD_ID, 1, 0, 1_700_000_000, 3_600)
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        refused(TokenOpener(ring), changed)


@given(text=st.text(max_size=200))
def test_rubbish_is_refused_with_a_reason(ring: KeyRing, text: str) -> None:
    assert refused(TokenOpener(ring), text) is RejectReason.TOKEN_MALFORMED or len(text) == TOKEN_CHARACTERS


def test_standard_alphabet_is_not_a_second_spelling(ring: KeyRing) -> None:
    minter, opener = TokenMinter(ring), TokenOpener(ring)
    token = next(t for t in iter(lambda: minter.mint(RECORD_ID, 1, 0, 0, 0), "") if "-" in t or "_" in t)
    assert refused(opener, token.replace("-", "+").replace("_", "/")) is RejectReason.TOKEN_MALFORMED


def test_expired_is_a_flag(ring: KeyRing) -> None:
    claims = TokenOpener(ring).open(TokenMinter(ring).mint(RECORD_ID, 1, 0, 1_000, 60))
    assert not claims.expired(1_060)
    assert claims.expired(1_060.001)


def test_a_token_of_another_environment_is_forged(ring: KeyRing, own_ring: KeyRing) -> None:
    token = TokenMinter(own_ring).mint(RECORD_ID, 1, 0, 0, 60)
    assert refused(TokenOpener(ring), token) is RejectReason.TOKEN_FORGED


def test_rotation_reaches_another_process_and_the_previous_key_still_opens(own_ring: KeyRing) -> None:
    elsewhere = KeyRing(own_ring._path)
    opener = TokenOpener(elsewhere)
    first = TokenMinter(own_ring).mint(RECORD_ID, 1, 0, 0, 60)
    assert own_ring.rotate(keys.TOKEN) == 2
    second = TokenMinter(own_ring).mint(RECORD_ID, 1, 0, 0, 60)
    assert opener.open(second) == opener.open(first)
    own_ring.rotate(keys.TOKEN)
    elsewhere.reload_if_changed()
    assert opener.open(second).record_id == RECORD_ID
    assert refused(opener, first) is RejectReason.TOKEN_UNKNOWN_KEY


def test_files_are_private_and_processes_that_race_agree(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    rings: list[KeyRing] = []
    threads = [threading.Thread(target=lambda: rings.append(KeyRing.load(folder))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.pseudonym("someone") for r in rings}) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_refused(own_ring: KeyRing) -> None:
    own_ring._path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        KeyRing(own_ring._path)


def test_a_broken_file_stops_a_new_process_but_not_a_running_one(own_ring: KeyRing) -> None:
    token = TokenMinter(own_ring).mint(RECORD_ID, 1, 0, 0, 60)
    own_ring._path.write_text("{")
    assert not own_ring.reload_if_changed()
    assert TokenOpener(own_ring).open(token).record_id == RECORD_ID
    with pytest.raises(ConfigError):
        KeyRing(own_ring._path)


def test_a_file_without_a_purpose_is_refused(own_ring: KeyRing) -> None:
    data = json.loads(own_ring._path.read_text())
    del data["purposes"][keys.UPSTREAM]
    own_ring._path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="upstream"):
        KeyRing(own_ring._path)


def test_api_keys_open_their_own_door_only(own_ring: KeyRing) -> None:
    for purpose in PURPOSES:
        assert own_ring.accepts(purpose, own_ring.api_key(purpose))
    assert not own_ring.accepts(keys.UPSTREAM, own_ring.api_key(keys.CONVERSIONS))
    for text in ("", "upstream", "upstream-x-y", "upstream-9-y", own_ring.api_key(keys.UPSTREAM) + "x", "é-1-x"):
        assert not own_ring.accepts(keys.UPSTREAM, text)


@given(st.binary(min_size=1, max_size=100), st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_a_pseudonym_is_an_hmac_whatever_the_key(key: bytes, raw: str) -> None:
    assert pseudonym(raw, 3, key) == "v3:" + encode_id(hmac.digest(key, raw.encode(), "sha256")[:16])


def test_a_household_is_not_the_user_of_the_same_name(own_ring: KeyRing) -> None:
    assert own_ring.household("10.0.0.1") != own_ring.pseudonym("10.0.0.1")
    assert own_ring.pseudonym("a") == own_ring.pseudonym("a") != own_ring.pseudonym("b")
