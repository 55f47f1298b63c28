"""API keys: who may ask, if not everybody."""

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from swarm.errors import ConfigError

VARIABLE = "SWARM_API_KEYS"
MIN_KEY_CHARS = 16  # of a key that nobody guesses
MAX_KEYS = 1024
SCHEME = "bearer "


class Keys:
    """Valid API keys; without any, everybody may ask. Only their hashes are kept.

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
    def load(cls, file: Path | None = None) -> "Keys":
        """Those of a file, one a line, and of the environment variable `VARIABLE`, separated by
        commas.

        Raises:
            ConfigError: if the file cannot be read or names none, too.
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
        """Whether this header may ask. Takes as long for a wrong key as for a right one."""
        if not self._digests:
            return True
        said = authorization or ""
        key = said[len(SCHEME) :].strip() if said.lower().startswith(SCHEME) else ""
        asked = _digest(key)
        return any([hmac.compare_digest(asked, digest) for digest in self._digests])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
