"""Who is champion: a table with compare-and-swap. MLflow's alias only mirrors it, because there the last writer wins.

One row per promotion, never changed; the row with the highest generation is the truth. Two trainings that end at once
both saw the same champion: the second to write is refused and must be judged again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Refused, Unavailable

_TABLE = """
CREATE TABLE IF NOT EXISTS promotions (
  model TEXT NOT NULL,
  generation INTEGER NOT NULL,
  version TEXT NOT NULL,
  promoted_time_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (model, generation)
)
"""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A version's turn as champion. Generations count from 1."""

    generation: int
    version: str
    promoted_time_ms: int
    reason: str


class Promotions:
    """The table in a SQLite file, made when it is new. Any number of processes may use it at once.

    Errors: Unavailable when the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._connection() as connection:
            connection.execute(_TABLE)

    def champion(self, model: str) -> Promotion | None:
        """The champion now."""
        with self._connection() as connection:
            return _champion(connection, model)

    def promote(self, model: str, version: str, expected: Promotion | None, now_ms: int, reason: str) -> Promotion:
        """Makes `version` champion if `expected` still is. Errors: Refused when it is not."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            current = _champion(connection, model)
            if (current and current.generation) != (expected and expected.generation):
                connection.execute("ROLLBACK")
                raise Refused(
                    f"{model}: version {current.version if current else 'none'} became champion meanwhile; judge again"
                )
            made = Promotion((current.generation if current else 0) + 1, version, now_ms, reason)
            connection.execute(
                "INSERT INTO promotions VALUES (?, ?, ?, ?, ?)",
                (model, made.generation, made.version, made.promoted_time_ms, made.reason),
            )
            connection.execute("COMMIT")
            return made

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as e:
            raise Unavailable(f"promotions in {self._path}: {e}") from e


def _champion(connection: sqlite3.Connection, model: str) -> Promotion | None:
    row = connection.execute(
        "SELECT generation, version, promoted_time_ms, reason FROM promotions WHERE model = ? "
        "ORDER BY generation DESC LIMIT 1",
        (model,),
    ).fetchone()
    return Promotion(*row) if row else None
