"""Lists of networks, such as those of data centres.

A file of one network per line in CIDR form; `#` begins a comment, `!` exempts a network, such as that of a server that
inserts ads for its viewers (SSAI). The file is read at start. Source: RFC 4632.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from schemas.errors import ConfigError

_REMEMBERED = 65_536
#: An address of IPv6 with its zone; what is longer is none, and not worth remembering.
_LONGEST_ADDRESS = 64

Network = IPv4Network | IPv6Network
#: (IP version, bits after the prefix) to prefixes: a look-up for each length of prefix that the list has.
_Prefixes = dict[tuple[int, int], set[int]]


class Networks:
    """Listed networks, less the exempt ones.

    Example:
    >>> listed = Networks.of_lines(["203.0.113.0/24  # a cloud", "!203.0.113.7"])
    >>> [address for address in ("203.0.113.8", "203.0.113.7", "198.51.100.1", "no address") if listed.has(address)]
    ['203.0.113.8']
    """

    def __init__(self, listed: Iterable[Network] = (), exempt: Iterable[Network] = ()) -> None:
        self._listed = _prefixes(listed)
        self._exempt = _prefixes(exempt)
        self._known = lru_cache(_REMEMBERED)(self._has)

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Networks:
        """Errors: ConfigError names every line that is no network."""
        listed: list[Network] = []
        exempt: list[Network] = []
        problems: list[str] = []
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            try:
                if text:
                    (exempt if text.startswith("!") else listed).append(ip_network(text.removeprefix("!").strip()))
            except ValueError as e:
                problems.append(f"line {number}: {e}")
        if problems:
            raise ConfigError("data-centre networks: " + "; ".join(problems))
        return cls(listed, exempt)

    @classmethod
    def load(cls, path: Path | None) -> Networks:
        """The networks of a file; none without one. Errors: ConfigError."""
        if path is None:
            return cls()
        try:
            return cls.of_lines(path.read_text().splitlines())
        except OSError as e:
            raise ConfigError(f"data-centre networks: {e}") from e

    def has(self, address: str) -> bool:
        """Whether an address is listed; what is none is not."""
        return len(address) <= _LONGEST_ADDRESS and self._known(address)

    def _has(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped or ip
        version, number = ip.version, int(ip)
        return _within(self._listed, version, number) and not _within(self._exempt, version, number)

    def __bool__(self) -> bool:
        return bool(self._listed)


def _prefixes(networks: Iterable[Network]) -> _Prefixes:
    found: _Prefixes = defaultdict(set)
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        found[network.version, host_bits].add(int(network.network_address) >> host_bits)
    return dict(found)


def _within(prefixes: _Prefixes, version: int, number: int) -> bool:
    return any(number >> bits in known for (of, bits), known in prefixes.items() if of == version)
