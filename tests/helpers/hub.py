"""A hub on loopback, which speaks as much of the Hugging Face hub's interface as a client needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/model"
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@dataclass
class LocalHub:
    """One model of the hub, and what was asked for.

    Attributes:
        folder: the model's files.
        ranges: whether it sends ranges; else whole files.
        sent: bytes of each file that were sent, as (file, first, one past the last).
        breaks: how many of the next weights break off in the middle.
    """

    folder: Path
    ranges: bool = True
    sent: list[tuple[str, int, int]] = field(default_factory=list)
    breaks: int = 0

    def weights_sent(self) -> int:
        """Return how many bytes of weight files were sent."""
        return sum(stop - start for file, start, stop in self.sent if file.endswith("safetensors"))

    def info(self) -> bytes:
        files = [
            {
                "rfilename": path.name,
                "size": path.stat().st_size,
                "lfs": {"sha256": sha256(path), "size": path.stat().st_size, "pointerSize": 130},
            }
            for path in self.folder.iterdir()
        ]
        return json.dumps({"id": REPO, "sha": COMMIT, "siblings": files}).encode()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def local_hub(folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Serve the folder as the model `REPO`, and make it the hub of this process.

    Args:
        cache: a folder for the caches of the hub's library and of swarm.
    """
    hub = LocalHub(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{REPO}"):
                content = b"[]" if "/tree/" in path else hub.info()
                self._send(200, content, {"Content-Type": "application/json"}, body)
                return
            file = hub.folder / path.rpartition("/")[2]
            if not path.startswith(f"/{REPO}/resolve/") or not file.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                return
            content = file.read_bytes()
            headers = {"ETag": f'"{sha256(file)}"', "X-Repo-Commit": COMMIT}
            wanted = RANGE.fullmatch(self.headers.get("Range", ""))
            start, stop, status = 0, len(content), 200
            if wanted and hub.ranges:
                start, stop, status = int(wanted[1]), min(int(wanted[2]) + 1, stop), 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            if body:
                hub.sent.append((file.name, start, stop))
            self._send(status, content[start:stop], headers, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and hub.breaks and "Content-Range" in headers:
                hub.breaks -= 1
                content = content[: len(content) // 2]
                self.close_connection = True
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    constants = huggingface_hub.constants
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setenv("SWARM_CACHE", str(cache / "swarm"))
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
