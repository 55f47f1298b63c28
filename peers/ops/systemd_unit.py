"""The text of a user's systemd unit; see systemd.service(5), systemd.exec(5), systemd.syntax(7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import UsageError

MARK = (
    "# Written by `swarm-peer install-service`, which writes it anew; `systemctl --user edit` keeps"
    " what you add."
)
# beyond the time that a peer takes to leave; then systemd kills it
KILL_AFTER_S = 10
# What a service of a user, who has no rights to give away, can do without on a host with a GPU.
# Not more: drivers need the devices, and kernel compilers need memory that is written and then run.
HARDENING = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077"""


@dataclass(eq=False)
class CannotQuote(UsageError):
    """A word that no line of a unit can hold."""

    word: str

    def __str__(self) -> str:
        return (
            f"{self.word!r} holds control characters, which a unit cannot; give the option without"
            " them"
        )


@dataclass(frozen=True)
class Unit:
    """What the service runs.

    Attributes:
        command: the program and its arguments, exactly.
        folder: where it runs; arguments may be relative to it.
        environment: variables that it gets.
        leave_s: the longest time that it takes to leave in order.
    """

    description: str
    command: Sequence[str]
    folder: Path
    leave_s: float
    environment: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the text of the file. Raise CannotQuote."""
        variables = "".join(
            f"Environment={_quoted(f'{name}={value}')}\n"
            for name, value in self.environment.items()
        )
        return f"""\
{MARK}
[Unit]
Description={_plain(self.description)}
# It is never given up: a peer that finds no way into its network may find one tomorrow.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={" ".join(_quoted(word).replace("$", "$$") for word in self.command)}
WorkingDirectory={_plain(str(self.folder))}
{variables}Restart=on-failure
# Wrong options do not become right by themselves.
RestartPreventExitStatus=2
# 5 seconds, then longer and longer; before systemd 254 always 5 seconds.
RestartSec=5
RestartSteps=8
RestartMaxDelaySec=300
# The peer hands its sessions over and ends libp2p's daemon itself; only what is left is killed.
KillSignal=SIGTERM
# What a peer ends with that is stopped before it has begun.
SuccessExitStatus=143
KillMode=mixed
TimeoutStopSec={round(self.leave_s + KILL_AFTER_S)}
# Where memory runs out, the owner's other programs come first.
OOMScoreAdjust=500
{HARDENING}

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """Return one word of a command line or an assignment, in quotes where it needs them."""
    plain = _plain(word)
    if plain and not set(plain) & set(" \t\"'\\;"):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(text: str) -> str:
    """Return text for a line that takes no quotes. Raise CannotQuote."""
    if not text.isprintable():
        raise CannotQuote(text)
    return text.replace("%", "%%")
