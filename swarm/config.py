"""Which network this process joins, and where it keeps its state."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

import swarm
from swarm.errors import ConfigError, IdentityError
from swarm.identity import public_key_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_NETWORK = "swarm-main"
MAX_BOOTSTRAP_NODES = 64  # all are asked at once when a node starts
_NAME = re.compile(r"[a-z0-9-]{1,32}")
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_EXAMPLE = "/ip4/203.0.113.5/tcp/31337/p2p/12D3KooW…"


@dataclass(frozen=True)
class Network:
    """A network's name and the bootstrap nodes through which it is entered.

    Nodes of differently named networks ignore each other's records. Raises ConfigError on a field that cannot work.

    Attributes:
        key: 32 bytes that every member of a private swarm has; None for a swarm that anybody may join.
    """

    name: str
    bootstrap: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError("network", f"{self.name!r} is not a name of 1 to 32 characters a-z, 0-9 and -")
        if len(self.bootstrap) > MAX_BOOTSTRAP_NODES:
            raise ConfigError("bootstrap", f"{len(self.bootstrap)} addresses, at most {MAX_BOOTSTRAP_NODES} are used")
        for address in self.bootstrap:
            check_multiaddr(address)


def load_network(
    *,
    bootstrap: Sequence[str] = (),
    name: str | None = None,
    file: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> Network:
    """The network to join: the file's values, replaced by the environment's, replaced by the arguments.

    Environment: SWARM_BOOTSTRAP (multiaddrs separated by commas or spaces), SWARM_NETWORK, SWARM_CONFIG (the file).
    The file is the argument, or SWARM_CONFIG, or the first that exists of ./bootstrap.toml, the user's
    configuration folder, and the one shipped with the project. Raises ConfigError on anything malformed.
    """
    chosen = _config_file(file, env)
    in_file = _read(chosen) if chosen else Network(DEFAULT_NETWORK)
    from_env = tuple(re.split(r"[,\s]+", env.get("SWARM_BOOTSTRAP", "").strip(", \t\n")))
    return Network(
        name=name or env.get("SWARM_NETWORK") or in_file.name,
        bootstrap=tuple(bootstrap) or tuple(filter(None, from_env)) or in_file.bootstrap,
    )


def state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """The folder for identities and caches: SWARM_HOME, or the platform's place for user data. Not created here."""
    home = env.get("SWARM_HOME")
    return Path(home).expanduser() if home else Path(platformdirs.user_data_dir("swarm", appauthor=False))


def _config_file(file: Path | None, env: Mapping[str, str]) -> Path | None:
    named = file or (Path(env["SWARM_CONFIG"]).expanduser() if env.get("SWARM_CONFIG") else None)
    if named:
        return named  # asked for, so it must exist: a silent fallback would join the wrong network
    package = Path(swarm.__file__).parent
    candidates = [
        Path("bootstrap.toml"),
        Path(platformdirs.user_config_dir("swarm", appauthor=False), "bootstrap.toml"),
        package.parent / "bootstrap.toml",  # a checkout
        package / "bootstrap.toml",  # an installed wheel
    ]
    return next((path for path in candidates if path.is_file()), None)


def _read(file: Path) -> Network:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"not valid TOML ({error})") from error
    if unknown := sorted(content.keys() - {"network", "bootstrap"}):
        raise ConfigError(str(file), f"unknown setting {unknown[0]!r}, known are network and bootstrap")
    bootstrap = content.get("bootstrap", [])
    if not isinstance(bootstrap, list) or not all(isinstance(address, str) for address in bootstrap):
        raise ConfigError(str(file), "bootstrap must be a list of strings")
    try:
        return Network(content.get("network", DEFAULT_NETWORK), tuple(bootstrap))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.field}", error.problem) from error


def is_multiaddr(address: str) -> bool:
    """Whether a bootstrap node can be named so."""
    try:
        check_multiaddr(address)
    except ConfigError:
        return False
    return True


def check_multiaddr(address: str) -> None:
    """Accept /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/ID: a bootstrap node is reached directly, never over a relay.

    Raises ConfigError on anything else.
    """
    wrong = ConfigError("bootstrap", f"{address!r} is not an address such as {_EXAMPLE}")
    parts = address.split("/")
    if len(parts) != 7 or parts[0] or parts[3] != "tcp" or parts[5] != "p2p":
        raise wrong
    _, kind, host, _, port, _, peer_id = parts
    if not _is_host(kind, host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise wrong
    try:
        public_key_of(peer_id)
    except IdentityError as error:
        raise ConfigError("bootstrap", f"{address!r} does not end with a peer id (12D3KooW…)") from error


def _is_host(kind: str, host: str) -> bool:
    if kind in ("dns", "dns4", "dns6"):
        return _DNS_NAME.fullmatch(host) is not None
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return False
    return kind == f"ip{version}"
