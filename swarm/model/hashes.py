"""SHA-256 of large files, remembered: hashing a checkpoint's weights once is enough."""

import hashlib
import json
import os
import threading
from pathlib import Path

import platformdirs

HASH_CHUNK_BYTES = 4 << 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex.

    The cache folder remembers it by (real path, size, modification time).
    """
    stat = path.stat()
    key = f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
    known = _read_hashes()
    if key not in known:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
        known[key] = digest.hexdigest()
        _remember_hash(key, known[key])
    return known[key]


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again."""
    return Path(os.environ.get("SWARM_CACHE") or platformdirs.user_cache_dir("swarm"))


def _hashes_path() -> Path:
    return cache_folder() / "sha256.json"


def _read_hashes() -> dict[str, str]:
    try:
        known = json.loads(_hashes_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember_hash(key: str, digest: str) -> None:
    path = _hashes_path()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_read_hashes(), key: digest}), "utf-8")
        temporary.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs time, never correctness
