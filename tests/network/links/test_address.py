import pytest

from swarm.network.links.address import RelayedAddress, check_address, is_relayed, join, split
from swarm.wire.fields import MAX_ADDRESS

RELAY = "/ip4/203.0.113.5/tcp/31337/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
PEER = "12D3KooWRHdv39CS4pr2WAuFzmzJzfNbJyequC8N2mtYNiEyk3xd"


@pytest.mark.parametrize(
    "relay", [RELAY, RELAY.replace("ip4/203.0.113.5", "dns4/relay.example.org")]
)
def test_a_place_is_what_it_is_written_as(relay: str) -> None:
    place = RelayedAddress(relay, PEER)
    assert RelayedAddress.parse(str(place)) == place
    assert is_relayed(str(place))
    check_address(str(place))


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "/",
        RELAY,
        f"{RELAY}/p2p-circuit",
        f"{RELAY}/p2p-circuit/p2p/nobody",
        f"{RELAY}/p2p-circuit/p2p/{PEER}\n",
        f"{RELAY}/p2p-circuit/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/dns4/{'a' * MAX_ADDRESS}/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        "203.0.113.5:31337",
    ],
)
def test_what_is_no_place_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        RelayedAddress.parse(wrong)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("203.0.113.5:1", "203.0.113.5", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("a.example:80", "a.example", 80),
    ],
)
def test_direct_addresses_come_apart_and_together(address: str, host: str, port: int) -> None:
    assert split(address) == (host, port)
    assert join(host, port) == address


@pytest.mark.parametrize(
    "wrong", ["", "host", "host:0", "host:65536", "-host:1", "a b:1", "::1:1", RELAY, "/x:1"]
)
def test_what_is_no_direct_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is n"):
        split(wrong)
