"""Which pages may send requests."""

import pytest

from swarm.gateway.browsers import check_host, check_origin
from swarm.gateway.errors import ForeignPage


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "[::1]:8000", "localhost", "app.localhost:1", "10.0.0.5", "Box:80"]
)
def test_addresses_and_names_of_this_host_are_let_in(host):
    check_host(host, {"box"})


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "box2"]
)
def test_other_names_are_not(host):
    with pytest.raises(ForeignPage):
        check_host(host, {"box"})


def test_only_pages_of_our_own_may_have_something_done():
    check_origin("POST", "localhost:8000", "http://localhost:8000")
    check_origin("POST", "localhost:8000", None)  # no page at all
    check_origin("GET", "localhost:8000", "http://evil.example")  # it cannot read the answer
    for origin in ("http://evil.example", "http://localhost:8001", "null", "http://[", ""):
        with pytest.raises(ForeignPage):
            check_origin("POST", "localhost:8000", origin)
