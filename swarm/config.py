"""The network that this process joins, and the folder that it keeps its state in."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs

from swarm.errors import ConfigError, IdentityError
from swarm.identity import public_key_of, read_private, write_private

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_NETWORK = "swarm-main"
MAX_BOOTSTRAP_NODES = 64  # all are asked at once when a node starts
MAX_MEMBERS = 100_000
NETWORK_KEY_BYTES = 32
NETWORK_NAME_PATTERN = "[a-z0-9-]{1,32}"
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SETTINGS = ("network", "bootstrap", "network_key_file", "members")
_EXAMPLE = "/ip4/203.0.113.5/tcp/31337/p2p/12D3KooW…"


@dataclass(frozen=True)
class Network:
    """A network's name and the bootstrap nodes through which it is entered.

    Nodes of differently named networks ignore each other's records. Raises ConfigError on a field
    that cannot work.

    Attributes:
        key: 32 bytes that every member of a private swarm has; None for an open swarm.
        members: peer ids that may take part; None if all may.
    """

    name: str
    bootstrap: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    members: frozenset[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(NETWORK_NAME_PATTERN, self.name):
            raise ConfigError(
                "network", f"{self.name!r} is not a name of 1 to 32 characters a-z, 0-9 and -"
            )
        if len(self.bootstrap) > MAX_BOOTSTRAP_NODES:
            raise ConfigError(
                "bootstrap",
                f"{len(self.bootstrap)} addresses, at most {MAX_BOOTSTRAP_NODES} are used",
            )
        for address in self.bootstrap:
            check_multiaddr(address)
        if self.key is not None and len(self.key) != NETWORK_KEY_BYTES:
            raise ConfigError(
                "network key", f"{len(self.key)} bytes, but it has {NETWORK_KEY_BYTES}"
            )
        if len(self.members or ()) > MAX_MEMBERS:
            raise ConfigError(
                "members", f"more than {MAX_MEMBERS} peer ids; give the swarm a network key instead"
            )
        for peer_id in self.members or ():
            try:
                public_key_of(peer_id)
            except IdentityError as error:
                raise ConfigError(
                    "members", f"{peer_id[:80]!r} is not a peer id (12D3KooW…)"
                ) from error

    @property
    def is_open(self) -> bool:
        """Whether anyone may take part."""
        return self.key is None and self.members is None

    def admits(self, peer_id: str) -> bool:
        """Whether this peer may take part: the list of members names it, or there is none."""
        return self.members is None or peer_id in self.members

    def check_member(self, peer_id: str) -> None:
        """Raise ConfigError if our own id may not take part."""
        if not self.admits(peer_id):
            raise ConfigError(
                "members",
                f"the list does not name us; add {peer_id} to it, on the other computers too",
            )


def load_network(
    *,
    bootstrap: Sequence[str] = (),
    name: str | None = None,
    key_file: Path | None = None,
    members_file: Path | None = None,
    file: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> Network:
    """Return the network to join: arguments go before the environment, and that before the file.

    Environment: SWARM_BOOTSTRAP (multiaddrs separated by commas or spaces), SWARM_NETWORK,
    SWARM_NETWORK_KEY_FILE, SWARM_MEMBERS_FILE, SWARM_CONFIG (the file). The file is the argument,
    or SWARM_CONFIG, or the first that exists of ./bootstrap.toml, the user's configuration folder,
    and the one shipped with the project. Raises ConfigError on anything malformed, IdentityError if
    the network's key cannot be used.
    """
    chosen = _config_file(file, env)
    content = _read(chosen) if chosen else {}
    folder = chosen.parent if chosen else Path()
    from_env = tuple(re.split(r"[,\s]+", env.get("SWARM_BOOTSTRAP", "").strip(", \t\n")))
    given_bootstrap = tuple(bootstrap) or tuple(filter(None, from_env))
    given_name = name or env.get("SWARM_NETWORK")
    key_file = key_file or _path(env.get("SWARM_NETWORK_KEY_FILE"))
    members_file = members_file or _path(env.get("SWARM_MEMBERS_FILE"))
    if key_file is None and "network_key_file" in content:
        key_file = folder / Path(content["network_key_file"]).expanduser()
    members = content.get("members")
    if members_file is None and isinstance(members, str):
        members_file = folder / Path(members).expanduser()
    key = load_network_key(key_file) if key_file else None
    listed = frozenset(members) if members is not None else None
    if members_file:
        listed = _load_members(members_file)
    try:
        in_file = Network(
            content.get("network", DEFAULT_NETWORK),
            tuple(content.get("bootstrap", ())),
            key,
            listed,
        )
    except ConfigError as error:
        raise ConfigError(f"{chosen or members_file}: {error.field}", error.problem) from error
    return replace(
        in_file, name=given_name or in_file.name, bootstrap=given_bootstrap or in_file.bootstrap
    )


def load_network_key(path: Path) -> bytes:
    """Return the key of a private swarm, from a file of 64 hex digits.

    Raises IdentityError if it cannot be used.
    """
    try:
        text = read_private(path)
    except OSError as error:
        raise IdentityError(
            str(path), f"cannot read this network key ({error.strerror or error})"
        ) from error
    if not re.fullmatch(rb"[0-9a-fA-F]{64}\s*", text):
        raise IdentityError(
            str(path), "not a network key; make one with `swarm-peer new-network-key FILE`"
        )
    return bytes.fromhex(text.decode())


def create_network_key(path: Path) -> None:
    """Write a new key to this file (mode 0600).

    Raises IdentityError if the file exists, or cannot be written.
    """
    try:
        write_private(path, secrets.token_hex(NETWORK_KEY_BYTES).encode() + b"\n")
    except FileExistsError:
        raise IdentityError(
            str(path), "is there already; name a new file, or move this one away"
        ) from None
    except OSError as error:
        raise IdentityError(
            str(path), f"cannot write a key here ({error.strerror or error})"
        ) from error


def state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for identities and caches: SWARM_HOME, or the platform's place for user
    data. It is not created.
    """
    home = env.get("SWARM_HOME")
    return (
        Path(home).expanduser()
        if home
        else Path(platformdirs.user_data_dir("swarm", appauthor=False))
    )


def _config_file(file: Path | None, env: Mapping[str, str]) -> Path | None:
    named = file or (Path(env["SWARM_CONFIG"]).expanduser() if env.get("SWARM_CONFIG") else None)
    if named:
        return named  # asked for, so it must exist: a silent fallback would join the wrong network
    package = Path(__file__).parent
    candidates = [
        Path("bootstrap.toml"),
        Path(platformdirs.user_config_dir("swarm", appauthor=False), "bootstrap.toml"),
        package.parent / "bootstrap.toml",  # a checkout
        package / "bootstrap.toml",  # an installed wheel
    ]
    return next((path for path in candidates if path.is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    """Return the settings in a file, each of the right type."""
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"not valid TOML ({error})") from error
    if unknown := sorted(content.keys() - set(_SETTINGS)):
        raise ConfigError(
            str(file), f"unknown setting {unknown[0]!r}, known are {', '.join(_SETTINGS)}"
        )
    if not _are_strings(content.get("bootstrap", [])):
        raise ConfigError(str(file), "bootstrap must be a list of strings")
    if not isinstance(content.get("network_key_file", ""), str):
        raise ConfigError(str(file), "network_key_file must be the name of a file")
    if not isinstance(members := content.get("members", []), str) and not _are_strings(members):
        raise ConfigError(
            str(file), "members must be a list of peer ids, or the name of a file of them"
        )
    return content


def _load_members(file: Path) -> frozenset[str]:
    """Return the peer ids in a file, one on each line; a # begins a comment."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("members", f"{file} cannot be read ({error})") from error
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None


def is_multiaddr(address: str) -> bool:
    """Whether a bootstrap node can be named by this address."""
    try:
        check_multiaddr(address)
    except ConfigError:
        return False
    return True


def check_multiaddr(address: str) -> None:
    """Accept /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/ID: a bootstrap node is reached directly,
    never over a relay.

    Raises ConfigError on anything else.
    """
    wrong = ConfigError("bootstrap", f"{address!r} is not an address such as {_EXAMPLE}")
    parts = address.split("/")
    if len(parts) != 7 or parts[0] or parts[3] != "tcp" or parts[5] != "p2p":
        raise wrong
    _, kind, host, _, port, _, peer_id = parts
    if (
        not _is_host(kind, host)
        or not re.fullmatch(r"[0-9]{1,5}", port)
        or not 0 < int(port) < 65536
    ):
        raise wrong
    try:
        public_key_of(peer_id)
    except IdentityError as error:
        raise ConfigError(
            "bootstrap", f"{address!r} does not end with a peer id (12D3KooW…)"
        ) from error


def _is_host(kind: str, host: str) -> bool:
    if kind in ("dns", "dns4", "dns6"):
        return _DNS_NAME.fullmatch(host) is not None
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return False
    return kind == f"ip{version}"
