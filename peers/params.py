"""Types of the options of ``swarm-peer``: what they accept, and what they say of anything else."""

import ipaddress
import re
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from peers.ops.health_server import ListenAddress


class LayerSpan(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``A:B``: layers A, A + 1, ..., B - 1."""

    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", str(value))
        if not match or int(match[1]) >= int(match[2]):
            self.fail(
                f"{value!r} is no span of layers; give A:B with A < B, such as 0:4", param, ctx
            )
        return int(match[1]), int(match[2])


class Bytes(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """An amount of memory, such as ``4GB``, ``512MB`` or ``1.5GiB``."""

    name = "BYTES"
    UNITS: ClassVar = {
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KIB": 1 << 10,
        "MIB": 1 << 20,
        "GIB": 1 << 30,
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(
            r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMG]i?B)", str(value), re.IGNORECASE
        )
        nbytes = float(match[1]) * self.UNITS[match[2].upper()] if match else 0
        if nbytes < 1:
            self.fail(
                f"{value!r} is no amount of memory; give a number with its unit, such as 4GB",
                param,
                ctx,
            )
        return int(nbytes)


class HostPort(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``host:port``, as other members dial it."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"[A-Za-z0-9.-]+:([0-9]{1,5})", str(value))
        if not match or not 0 < int(match[1]) < 65536:
            self.fail(
                f"{value!r} is no address; give HOST:PORT, such as peer.example.org:31330",
                param,
                ctx,
            )
        return str(value)


class WhereToListen(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``port``, for this computer alone, or ``host:port``."""

    name = "[HOST:]PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "ListenAddress":
        from peers.ops.health_server import ListenAddress

        host, _, port = str(value).rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            self.fail(
                f"{value!r} is no place to listen at; give PORT, or ADDRESS:PORT such as"
                " 0.0.0.0:9464",
                param,
                ctx,
            )
        return ListenAddress(Ipv4().convert(host or "127.0.0.1", param, ctx), int(port))


class Ipv4(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """An address of this computer; a name could stand for several."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ipaddress.IPv4Address(value))
        except ValueError:
            self.fail(
                f"{value!r} is no IPv4 address; give 0.0.0.0 for all of this computer's", param, ctx
            )
