"""API keys: which requests are authorized."""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import ConfigError

VARIABLE = "SWARM_API_KEYS"
MIN_KEY_CHARS = 16  # shorter keys can be guessed
MAX_KEYS = 1024
SCHEME = "bearer "


class ApiKeys:
    """The valid API keys; without any, every request is authorized. Only their hashes are kept.

    Raises:
        ConfigError: for a key that is too short or cannot be sent in a header.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        given = list(dict.fromkeys(keys))
        for key in given:
            if len(key) < MIN_KEY_CHARS or not (key.isascii() and key.isprintable()) or " " in key:
                problem = (
                    f"a key needs at least {MIN_KEY_CHARS} printable ASCII characters and no space"
                )
                raise ConfigError("API key", f"{problem}; make one with `openssl rand -hex 16`")
        if len(given) > MAX_KEYS:
            raise ConfigError("API keys", f"{len(given)} are too many; give at most {MAX_KEYS}")
        self._digests = [_digest(key) for key in given]

    @classmethod
    def load(cls, file: Path | None = None) -> "ApiKeys":
        """Return the keys of ``file`` and of the environment variable `VARIABLE`.

        A file has one key a line; the variable's keys are separated by commas.

        Raises:
            ConfigError: for an invalid key, and for a file that cannot be read or holds no key.
        """
        keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",")]
        if file is not None:
            try:
                lines = [line.strip() for line in file.read_text("ascii").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError("--api-keys", f"{file} cannot be read ({error})") from None
            named = [line for line in lines if line and not line.startswith("#")]
            if not named:
                raise ConfigError("--api-keys", f"{file} holds no key; write one a line")
            keys += named
        return cls(key for key in keys if key)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: str | None) -> bool:
        """Tell whether an ``Authorization`` header holds a valid key, in constant time."""
        if not self._digests:
            return True
        header = authorization or ""
        key = header[len(SCHEME) :].strip() if header.lower().startswith(SCHEME) else ""
        given = _digest(key)
        return any([hmac.compare_digest(given, digest) for digest in self._digests])

    def name_of(self, authorization: str | None) -> str:
        """Return a name for the key of a request that was admitted: its hash."""
        key = (authorization or "")[len(SCHEME) :].strip()
        return hashlib.sha256(b"owner:" + key.encode("utf-8", "surrogateescape")).hexdigest()


def authorization(headers: Mapping[str, str]) -> str | None:
    """Return the ``Authorization`` of a request; Anthropic's clients send ``x-api-key`` instead."""
    key = headers.get("x-api-key")
    return headers.get("Authorization") or (f"Bearer {key}" if key is not None else None)


@dataclass(frozen=True)
class Owners:
    """Whose the texts of a request are: those of its API key.

    Attributes:
        local: only this host can send requests, so that those without a key are its user's.
    """

    keys: ApiKeys
    local: bool

    def of(self, authorization: str | None) -> str | None:
        """Return the owner of an admitted request (`Options.owner`).

        None, if it may come from anyone: such requests share kept sessions, in which the next turn
        of a conversation goes on, and nothing that would outlive these.
        """
        if self.keys:
            return self.keys.name_of(authorization)
        return "" if self.local else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
