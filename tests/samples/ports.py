"""Ports for servers that a test starts itself."""

from __future__ import annotations

import random
from pathlib import Path

from connectors.endpoints import PORT_OFFSETS, Endpoints
from infra.local.control import taken_ports

#: Below the ports that Linux gives to outgoing connections (ip_local_port_range, 32768 and up), where each of the
#: suite's own clients may hold one; above those of the suite's stacks.
_FIRST, _LAST = 22_000, 32_000


def free_base() -> int:
    """A base from which every local part's port can be bound now. Errors: AssertionError when none is found."""
    for base in random.sample(range(_FIRST, _LAST, 50), 50):
        if not taken_ports(Endpoints(port_base=base, home=Path()), PORT_OFFSETS):
            return base
    raise AssertionError("no free ports")
