"""Networks of data centres at the collector's door: whose address it is, what is listed, a file's mistakes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.addresses import sender
from connectors.http_messages import Request
from connectors.networks import Networks
from schemas.errors import ConfigError
from serving.collector.networks import DATA_CENTER, Doubts


def request(peer: str, forwarded: str | None = None) -> Request:
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded.encode()}
    return Request("GET", "/t/token", b"", headers, b"", peer)


NETWORKS = st.ip_addresses().flatmap(
    lambda ip: st.integers(8, ip.max_prefixlen).map(lambda bits: ip_network((ip, bits), strict=False))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NETWORKS, max_size=5), st.lists(NETWORKS, max_size=2), st.data())
def test_an_address_is_listed_when_a_network_has_it_and_no_exemption(listed, exempt, data) -> None:
    near = [network[0] for network in (*listed, *exempt)] + [network[-1] for network in (*listed, *exempt)]
    address = data.draw(st.sampled_from(near) if near else st.ip_addresses())
    within = [any(address in network for network in networks) for networks in (listed, exempt)]
    if getattr(address, "ipv4_mapped", None) is None:
        assert Networks(listed, exempt).has(str(address)) == (within[0] and not within[1])


def test_an_address_of_ipv4_in_ipv6_is_that_of_ipv4() -> None:
    assert Networks([ip_network("203.0.113.0/24")]).has("::ffff:203.0.113.9")
    assert str(ip_address("::ffff:203.0.113.9").ipv4_mapped) == "203.0.113.9"


def test_without_a_list_nothing_is_doubted_and_with_one_what_it_names() -> None:
    assert Doubts(Networks.load(None))(request("203.0.113.9")) == ()
    doubts = Doubts(Networks.of_lines(["203.0.113.0/24", "!203.0.113.7 # inserts ads", "2001:db8::/32"]))
    assert doubts(request("203.0.113.9")) == (DATA_CENTER,)
    assert doubts(request("2001:db8::1")) == (DATA_CENTER,)
    assert doubts(request("203.0.113.7")) == doubts(request("198.51.100.1")) == doubts(request("")) == ()


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, "198.51.100.1", "10.0.0.1"),
        (1, "198.51.100.1", "198.51.100.1"),
        (1, "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        (2, "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (2, "198.51.100.1", "10.0.0.1"),
    ],
)
def test_only_our_own_proxies_are_believed(hops: int, forwarded: str, address: str) -> None:
    assert sender(request("10.0.0.1", forwarded), hops) == address


def test_every_mistake_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "networks.txt"
    path.write_text("# clouds\n203.0.113.0/24\n203.0.113.9/24\n\nnonsense\n")
    with pytest.raises(ConfigError, match=r"line 3: 203.0.113.9/24 has host bits set; line 5: 'nonsense'"):
        Networks.load(path)
    with pytest.raises(ConfigError, match="No such file"):
        Networks.load(tmp_path / "missing.txt")
