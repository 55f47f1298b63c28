"""Byte ranges of a file on the hub, through the session of the hub's own library.

Proxies, tokens, endpoints and retries are therefore those of `huggingface_hub`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import huggingface_hub
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, not exported
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

TIMEOUT_S = 30.0  # without a byte
PARTIAL_CONTENT = 206
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class NoRanges(Exception):
    """The server sends whole files only. Never leaves `swarm.model.hub`."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub.

    Attributes:
        size: in bytes, as the hub lists it.
    """

    repo: str
    name: str
    revision: str | None
    size: int

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`, which lie within the file.

        Raises:
            NoRanges: if the server does not know ranges.
            ValueError: if it sends other bytes than it was asked for.
            Exception: what the hub's library raises for a request that fails.
        """
        url = huggingface_hub.hf_hub_url(self.repo, self.name, revision=self.revision)
        headers = {
            **build_hf_headers(),
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        with http_stream_backoff("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            if response.status_code != PARTIAL_CONTENT:
                raise NoRanges(self.name)
            sent = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if sent is None or tuple(map(int, sent.groups())) != (start, stop - 1, self.size):
                told = response.headers.get("Content-Range", "")[:60]
                raise ValueError(f"the hub sent {told!r} of a file of {self.size:,} bytes")
            left = stop - start
            for chunk in response.iter_bytes():
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
            if left:
                raise ValueError(f"the hub did not send {stop - start:,} bytes as it had said")
