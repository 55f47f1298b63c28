"""There is no way into the network."""

from dataclasses import dataclass, field

from swarm.errors.bases import NetworkUnreachable


@dataclass(eq=False)
class NoBootstrap(NetworkUnreachable):
    """No bootstrap node answered; `tried` holds the addresses asked, none if none is configured."""

    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.tried:
            return (
                "No bootstrap node is configured: name one with --bootstrap, SWARM_BOOTSTRAP or"
                " bootstrap.toml, or start your own with `swarm-peer bootstrap`."
            )
        return (
            f"No bootstrap node answers (tried {', '.join(self.tried)}): check that it runs and"
            " that its address and your network are right, and in a private swarm its key, too."
        )


@dataclass(eq=False)
class DirectoryDown(NetworkUnreachable):
    """The DHT cannot be used right now; `reason` says why.

    Often passes by itself, so owners may try again.
    """

    reason: str

    def __str__(self) -> str:
        return f"The swarm's directory is not usable: {self.reason}."


@dataclass(eq=False)
class ClockOff(DirectoryDown):
    """Our clock and other nodes' are too far apart: either side drops the other's records.

    Fields: `ahead_s` (by how much ours is ahead; negative if it is behind), `nodes` (how many told
    their time).
    """

    reason: str = field(default="this computer's clock and the others' differ", init=False)
    ahead_s: float
    nodes: int

    def __str__(self) -> str:
        way = "ahead of" if self.ahead_s > 0 else "behind"
        others = (
            "that of the only node asked" if self.nodes == 1 else f"those of {self.nodes} nodes"
        )
        return (
            f"This computer's clock is {abs(self.ahead_s):.0f} s {way} {others}, so that they do"
            " not see each other's records: set it, for example by `sudo timedatectl set-ntp"
            " true`, and the rest goes on by itself."
        )
