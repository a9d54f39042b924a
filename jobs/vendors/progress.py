"""Where every partner of a partition is, in one commit of a Kafka consumer group.

The committed offset is the slowest partner's; its metadata says where the partition is read to and which partners are
behind that, so that after a restart a partner that is level is not read again because of one that is down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

#: The broker's `offset.metadata.max.bytes` is 4096.
MAX_METADATA_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Progress:
    """`head`: offset up to which the partition was read. `behind`: partner -> offset from which its calls are open."""

    head: int
    behind: Mapping[str, int] = field(default_factory=dict)

    @property
    def offset(self) -> int:
        """What is committed: nothing before it has to be read again."""
        return min(self.behind.values(), default=self.head)

    @property
    def metadata(self) -> str:
        return json.dumps({"head": self.head, "behind": dict(self.behind)}, separators=(",", ":"))

    @property
    def fits(self) -> bool:
        """Whether the broker takes it: about a hundred partners may be behind in one partition."""
        return len(self.metadata.encode()) <= MAX_METADATA_BYTES

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> Progress:
        """What was committed. A commit of somebody else's, without our metadata, is a plain offset.

        Example:
        >>> Progress.read(7, Progress(9, {"verifier": 7}).metadata)
        Progress(head=9, behind={'verifier': 7})
        >>> Progress.read(7, "")
        Progress(head=7, behind={})
        """
        try:
            found = json.loads(metadata or "")
            read = cls(int(found["head"]), {str(k): int(v) for k, v in found["behind"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(offset)
        return read if read.offset == offset else cls(offset)  # an operator has moved the group
