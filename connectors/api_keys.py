"""Keys of the reporting API: one per advertiser and one `admin`, in a file that only the owner can read.

The file holds the keys themselves, for on one machine somebody must be able to hand them out; the process that checks
them keeps only their hashes.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from schemas.errors import ConfigError

ADMIN = "admin"

#: Name of the file in the secrets folder.
FILE_NAME = "reporting-keys.json"


def ensure_keys(path: Path, principals: Iterable[str]) -> dict[str, str]:
    """The key of every principal; those that have none yet get one, and the file is made or renewed atomically.

    Any number of processes may call it at once: all see the same keys.
    Errors: ConfigError when the file is open to others or not ours.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path) if path.exists() else {}
        new = [name for name in principals if name not in keys]
        if new:
            keys |= {name: secrets.token_urlsafe(32) for name in new}
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(keys, indent=1) + "\n")
            draft.replace(path)
        return keys
    finally:
        os.close(lock)


def read_keys(path: Path) -> dict[str, str]:
    """The key of each principal. Errors: ConfigError when the file is missing, open to others or not ours."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"key file {path} is open to others: chmod 600 it")
        keys = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no key file {path}: the reporting service makes it at its first start") from None
    except ValueError as error:
        raise ConfigError(f"key file {path} is not JSON: {error}") from error
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise ConfigError(f"key file {path}: expected an object of principal and key")
    return keys


class KeyChecker:
    """Tells whose key one is, by hashes alone."""

    def __init__(self, keys: dict[str, str]) -> None:
        self._hashes = {principal: _hash(key) for principal, key in keys.items()}

    def principal_of(self, key: str) -> str | None:
        """The principal whose key this is, None for a wrong one. Takes the same time for any key.

        Example:
            >>> checker = KeyChecker({"admin": "open sesame"})
            >>> checker.principal_of("open sesame"), checker.principal_of("open")
            ('admin', None)
        """
        given = _hash(key)
        found = None
        for principal, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = principal  # and look on: stopping here would tell the place by the time
        return found


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
