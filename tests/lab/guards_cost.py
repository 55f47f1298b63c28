"""The cost of the guards at a peer's edge: ``python tests/lab/guards_cost.py``.

Prints figures; nothing is asserted.

Two peers on loopback serve a Llama of random weights, without any emulated delay: a real loop takes
longer, so that the guards' share of it is smaller. Loops with and without guards alternate. Because
one loop varies by more than the guards cost, their cost is also measured by itself and given as a
share of the loop.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.loopback import Peer, ask, dialed, opening, soon, tokens_frame
from peers.access.control import AccessControl
from peers.sessions import checks, downstream
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.wire.messages import Opened, Result
from swarm.wire.tensors import WireTensor

LAYERS, MIDDLE, WINDOW = 8, 4, 8
WIDTHS, TOKENS = (4096, 8192), 16  # of frames that are checked by themselves


async def unpaced(*_: Any, **__: Any) -> None:
    pass


@contextmanager
def unguarded() -> Iterator[None]:
    """Disable the counting of messages and the checks of tensors within the block."""
    kept = AccessControl.pace, AccessControl.banned, checks._fits, downstream._packed
    AccessControl.pace, AccessControl.banned = unpaced, lambda *_: False  # type: ignore[method-assign, assignment]
    checks._fits, downstream._packed = lambda *_: True, WireTensor.pack  # type: ignore[assignment]
    try:
        yield
    finally:
        AccessControl.pace, AccessControl.banned, checks._fits, downstream._packed = kept  # type: ignore[method-assign]


async def loops(checkpoint: Checkpoint, count: int) -> dict[bool, list[float]]:
    """Return the milliseconds of loops with guards and without."""
    spans = Span.load(checkpoint, 0, MIDDLE), Span.load(checkpoint, MIDDLE, LAYERS)
    times: dict[bool, list[float]] = {True: [], False: []}
    room = {"cache_tokens": 1 << 15, "max_positions": 1 << 15}
    async with (
        Peer(spans[0], checkpoint.fingerprint, **room) as first,
        Peer(spans[1], checkpoint.fingerprint, **room) as last,
        dialed(first.server) as to_first,
        dialed(last.server) as to_last,
    ):
        most = 2 * count * WINDOW
        follows = opening(
            checkpoint.fingerprint, MIDDLE, LAYERS, max_tokens=most, previous=first.id
        )
        assert isinstance(await ask(to_last, follows), Opened)
        begins = opening(checkpoint.fingerprint, 0, MIDDLE, max_tokens=most, next=last.server.hop)
        assert isinstance(await ask(to_first, begins), Opened)
        for number in range(2 * count):
            guarded = number % 2 == 0
            with nullcontext() if guarded else unguarded():
                began = time.perf_counter()
                await to_first.send(
                    tokens_frame(1 + number * WINDOW, (3,) * WINDOW, root=number * WINDOW)
                )
                assert isinstance(await soon(to_last.receive()), Result)
                times[guarded].append((time.perf_counter() - began) * 1e3)
    return times


def microseconds(work: Any, repeats: int = 200) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e6)
    return median(times)


async def by_themselves(checkpoint: Checkpoint) -> float:
    """Return the microseconds of the guards in one loop.

    Two messages are counted, one frame is checked by both peers, and the answer by the last.
    """
    hidden = WireTensor.pack(torch.randn(WINDOW, checkpoint.hidden_size))
    looked_us = microseconds(lambda: hidden.is_finite)
    admission, link = AccessControl(), _Somebody()
    counted = []
    for _ in range(2000):
        began = time.perf_counter()
        admission.banned(link)  # type: ignore[arg-type]
        await admission.pace(link, 100, forwarded=True)  # type: ignore[arg-type]
        counted.append((time.perf_counter() - began) * 1e6)
    counted_us = median(counted)
    print(
        f"a message: {counted_us:.1f} us to count it; {WINDOW} tokens of {checkpoint.hidden_size}:"
        f" {looked_us:.1f} us"
    )
    return 2 * counted_us + 3 * looked_us


class _Somebody:
    peer_id, address, relayed = (
        "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
        "192.0.2.7",
        False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the guards at a peer's edge cost.")
    parser.add_argument("--loops", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=512)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for width in WIDTHS:
        for dtype in (torch.bfloat16, torch.float32):
            frame = WireTensor.pack(torch.randn(TOKENS, width).to(dtype))
            print(
                f"{TOKENS} tokens of {width} in {frame.dtype}:"
                f" {microseconds(lambda f=frame: f.is_finite):.1f} us"
            )
    config = LlamaConfig(
        hidden_size=asked.hidden,
        intermediate_size=3 * asked.hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=1000,
        max_position_embeddings=1 << 15,
    )
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        checkpoint = Checkpoint.open(folder)
        times = asyncio.run(loops(checkpoint, asked.loops))
        guards_us = asyncio.run(by_themselves(checkpoint))
    guarded, bare = median(times[True]), median(times[False])
    print(
        f"a loop of {WINDOW} tokens: {guarded:.2f} ms guarded, {bare:.2f} ms not:"
        f" {guarded / bare - 1:+.1%}"
    )
    print(
        f"the guards by themselves: {guards_us:.0f} us a loop, {guards_us / bare / 10:.2f} % of it"
    )


if __name__ == "__main__":
    main()
