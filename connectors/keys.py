"""Secret keys of one environment: for tokens, pseudonyms and the doors that only known parties may use.

One JSON file per environment in the secrets folder (mode 0700, file 0600), made at its first use. Every process
reads it through a `KeyRing`, which notices a rotation within `CHECK_EVERY_S` without a restart: the newest key of
a purpose signs, all of them are still accepted until they are retired.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import secrets as random_source
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.ids import decode_id, encode_id, pseudonym

FORMAT_VERSION = 1
KEY_BYTES = 32
#: Seconds between looks at the file's stamp; a rotation reaches every process within this time.
CHECK_EVERY_S = 1.0

TOKEN = "token"  # AES-256-GCM keys of tracker tokens
PSEUDONYM = "pseudonym"  # HMAC keys of pseudonyms
UPSTREAM = "upstream"  # API keys of the door for upstream logs
CONVERSIONS = "conversions"  # API keys of the door for conversions
PURPOSES = (TOKEN, PSEUDONYM, UPSTREAM, CONVERSIONS)

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Ids count from 1 within a purpose and are never reused."""

    id: int
    secret: bytes


class KeyRing:
    """Keys by purpose and id, reloaded when their file changes.

    Reading is cheap (a clock, and a stat once a second), never blocks on other processes, and may be shared by
    threads: a reload replaces whole tables.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp | None = None
        self._next_check_s = 0.0
        self._keys: dict[str, dict[int, Key]] = {}
        self._current: dict[str, Key] = {}
        self.reload_if_changed()

    @classmethod
    def load(cls, secrets_dir: Path, environment: str = "local") -> KeyRing:
        """The environment's keys; their file is made when there is none (any number of processes may race for it).

        Errors: ConfigError when the file is unreadable, readable by others, or not in our form.
        """
        secrets_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = secrets_dir / f"keys-{environment}.json"
        if not path.exists():
            _create(path)
        return cls(path)

    def current(self, purpose: str) -> Key:
        """The key that signs and encrypts now."""
        if time.monotonic() >= self._next_check_s:
            self.reload_if_changed()
        return self._current[purpose]

    def by_id(self, purpose: str, key_id: int) -> Key | None:
        """A current or previous key; None when there is no such key (also after looking at the file again)."""
        if time.monotonic() >= self._next_check_s:
            self.reload_if_changed()
        key = self._keys[purpose].get(key_id)
        if key is None and self.reload_if_changed():
            key = self._keys[purpose].get(key_id)
        return key

    def ids(self, purpose: str) -> list[int]:
        """Ids of the keys that are held, oldest first: the last one is the current."""
        self.reload_if_changed()
        return sorted(self._keys[purpose])

    def pseudonym(self, raw: str) -> str:
        """Pseudonym of a user id or e-mail under the current key: `v<key>:<22 characters>`."""
        key = self.current(PSEUDONYM)
        return pseudonym(raw, key.id, key.secret)

    def household(self, ip: str) -> str:
        """Pseudonym of an IP address. Another domain than users', so that a user called like an IP is not one."""
        return self.pseudonym(f"ip:{ip}")

    def api_key(self, purpose: str) -> str:
        """The secret that a client of a guarded door sends in `X-Api-Key`."""
        key = self.current(purpose)
        return f"{purpose}-{key.id}-{encode_id(key.secret)}"

    def accepts(self, purpose: str, presented: str) -> bool:
        """Whether an API key is one of the purpose's, compared in constant time; False for any other text."""
        try:
            name, key_id, _secret = presented.split("-", 2)
            key = self.by_id(purpose, int(key_id)) if name == purpose else None
        except ValueError:
            return False
        expected = f"{purpose}-{key.id}-{encode_id(key.secret)}" if key else ""
        return key is not None and hmac.compare_digest(expected.encode(), presented.encode())

    def rotate(self, purpose: str, keep: int = 2) -> int:
        """Adds a key that signs from now on and retires all but the newest `keep`; gives back its id.

        Rotations of several processes queue behind each other. What a retired key made is refused from then on,
        so leave at least a token's life between two rotations of `token`.
        """
        with _locked(self._path):
            data = _read(self._path)
            keys = data["purposes"][purpose]
            key_id = max(map(int, keys)) + 1
            keys[str(key_id)] = _new_secret()
            for retired in sorted(keys, key=int)[:-keep]:
                del keys[retired]
            draft = _write_draft(self._path, data)
            draft.replace(self._path)
        self.reload_if_changed()
        return key_id

    def reload_if_changed(self) -> bool:
        """Reads the file again if its stamp is another; True when other keys are held now.

        Errors: ConfigError at the first reading. Later, a file that is gone or broken leaves the keys as they are.
        """
        self._next_check_s = time.monotonic() + CHECK_EVERY_S
        try:
            return self._reload()
        except ConfigError as e:
            if self._stamp is None:
                raise
            logger.warning("keys not reloaded", extra={"error": str(e)})
            return False

    def _reload(self) -> bool:
        try:
            status = self._path.stat()
        except OSError as e:
            raise ConfigError(f"key file {self._path}: {e.strerror}") from e
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return False
        if status.st_mode & 0o077:
            raise ConfigError(f"key file {self._path} is open to others: chmod 600 it")
        purposes = _read(self._path)["purposes"]
        keys = {p: {int(i): Key(int(i), decode_id(s)) for i, s in purposes[p].items()} for p in PURPOSES}
        self._current = {p: table[max(table)] for p, table in keys.items()}
        self._keys = keys
        self._stamp = stamp
        return True


def _new_secret() -> str:
    return encode_id(random_source.token_bytes(KEY_BYTES))


def _create(path: Path) -> None:
    """Makes the file with a first key per purpose. Of several processes one wins: a link never replaces a file."""
    data = {"version": FORMAT_VERSION, "purposes": {p: {"1": _new_secret()} for p in PURPOSES}}
    draft = _write_draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _write_draft(path: Path, data: dict[str, Any]) -> Path:
    """A complete, synced file beside `path`, readable by its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{random_source.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _read(path: Path) -> dict[str, Any]:
    """The file's content. Errors: ConfigError says what is wrong, never what a key is."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise ConfigError(f"key file {path} can't be read: {type(e).__name__}") from e
    if not isinstance(data, dict) or data.get("version") != FORMAT_VERSION:
        raise ConfigError(f"key file {path} is not of version {FORMAT_VERSION}")
    missing = [p for p in PURPOSES if not data.get("purposes", {}).get(p)]
    if missing:
        raise ConfigError(f"key file {path} has no keys for: {', '.join(missing)}")
    return data


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the file's lock among processes."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
