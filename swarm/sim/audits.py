"""How soon lies are noticed, and how honest peers differ: ``python -m swarm.sim.audits``.

Everything but the network is real: spans of the demo target compute, texts are cut into windows and
runs as the auditor cuts them, and the ledger, the trial and the tolerance are the client's own. It
takes a quarter of an hour on one core.
"""

import random
import statistics
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.audit.ledger import Ledger
from swarm.audit.tolerance import distances, tolerance
from swarm.model.span import Span
from swarm.sim.lab import STAGES, FrameSizes, Lab, at_once, one_by_one, written
from swarm.sim.lies import (
    LyingSpan,
    SkippingSpan,
    cheap_weights,
    noise,
    other_weights,
    small_frames,
    unchanged,
    zeros,
)
from swarm.sim.lying_swarm import RATE, Liar, LyingSwarm

MORE_TEXTS = 24
DTYPES = (torch.float32, torch.bfloat16)
HONEST_AUDITS = 10_000
TRIES = 7
RARE_TRIES = 15  # of a liar that lies rarely
MOST_TEXTS = 300


# Honest peers.


def spread(lab: Lab) -> None:
    """Print how far honest peers are apart, and how many of their audits disagree.

    Each audit compares other answers.
    """
    _heading(
        "dtypes", "p50", "p98", "p99.9", "largest median of a text", "limit", "audits", "disagree"
    )
    full, half = (
        [_variants(lab, spans, *text) for text in lab.texts] for spans in map(lab.spans, DTYPES)
    )
    pairs = [
        (text, i, j)
        for text in range(len(lab.texts))
        for i in range(len(full[text]))
        for j in range(i)
    ]
    for name, ones, others in (
        ("float32", full, full),
        ("bfloat16", half, half),
        ("mixed", full, half),
    ):
        limit = tolerance({"float32"} if name == "float32" else {"bfloat16"}, experts=False)
        apart: list[Tensor] = []
        for text, i, j in lab.rng.sample(pairs, min(HONEST_AUDITS, len(pairs))):
            one = ones[text][i]
            other = others[text][j]
            positions = lab.sample(range(lab.texts[text][1] - 1, len(one)))
            apart.append(distances(one[positions], other[positions]))
        disagree = sum(not limit.holds(each) for each in apart)
        every = torch.cat(apart)
        middle = max(float(each.median()) for each in apart)
        quantiles = [f"{_quantile(every, q):.1e}" for q in (0.5, 0.98, 0.999)]
        limits = [f"{middle:.1e}", f"{limit.median:.0e}", f"{len(apart):,}", f"{disagree}"]
        _row(name, *quantiles, *limits)


def _variants(lab: Lab, spans: Sequence[Span], tokens: Sequence[int], prompt: int) -> list[Tensor]:
    """Compute one text with one and two threads, in all frame sizes, alone and beside others.

    The second stage computes in each of these ways on the first stage's outputs of each way.
    """
    ways: list[tuple[FrameSizes, int, bool]] = [
        (written, 1, False),
        (written, 2, False),
        (written, 1, True),
        (at_once, 1, False),
        (at_once, 2, True),
    ]
    ids = torch.tensor(tokens)
    between = []
    for sizes, threads, packed in [*ways, (one_by_one, 1, False)]:
        frames = sizes(tokens, prompt, lab.rng)
        between.append(lab.compute(spans[0], ids, frames, threads, packed))
    variants = []
    for rows in between:
        for sizes, threads, packed in ways:
            frames = sizes(tokens, prompt, lab.rng)
            outputs = lab.compute(spans[1], rows, frames, threads, packed)
            variants.append(lab.head.normed(outputs))
    return variants


def _quantile(values: Tensor, q: float) -> float:
    return float(values.kthvalue(max(1, round(q * len(values)))).values)


# Liars.


def liars(lab: Lab, dtype: torch.dtype) -> None:
    """Print how many windows each kind of liar computes until it is noticed, and banned."""
    name = str(dtype).removeprefix("torch.")
    honest = lab.spans(dtype)
    columns = (f"{each}: median, 95 %" for each in ("windows until noticed", "until banned"))
    _heading(f"lies of a {name} peer", *columns, "not banned", "innocent banned")
    for liar in _liars(lab, honest[1], dtype):
        tries = TRIES if liar.share == 1.0 else RARE_TRIES
        found = [LyingSwarm(lab, honest, liar, seed).write(MOST_TEXTS) for seed in range(tries)]
        banned = [each.banned for each in found if each.banned is not None]
        noticed = _middle_and_most([each.noticed for each in found])
        not_banned = f"{tries - len(banned)} of {tries}"
        innocent = sum(each.innocent for each in found)
        _row(liar.name, noticed, _middle_and_most(banned), not_banned, f"{innocent}")


def _liars(lab: Lab, span: Span, dtype: torch.dtype) -> list[Liar]:
    """Return liars of all kinds; ``span`` is the honest one of their stage."""
    name = str(dtype).removeprefix("torch.")
    stage = STAGES[1]
    checkpoint = lab.checkpoint
    return [
        Liar("random noise", LyingSpan(span, noise)),
        Liar("zeroed output", LyingSpan(span, zeros)),
        Liar("returned input", LyingSpan(span, unchanged)),
        Liar("half of the layers", SkippingSpan(span)),
        Liar("another model's weights", other_weights(checkpoint, *stage, dtype)),
        Liar(f"4-bit weights as {name}", cheap_weights(checkpoint, *stage, dtype)),
        Liar("noise in 1 % of frames", LyingSpan(span, noise), share=0.01),
        Liar("honest to prompts and prefills", LyingSpan(span, noise, small_frames)),
        Liar("the same, if audits were prefills", LyingSpan(span, noise, small_frames), 1, at_once),
    ]


def _middle_and_most(counts: Sequence[int]) -> str:
    """Return the median and the 95th percentile."""
    if not counts:
        return "-"
    ordered = sorted(counts)
    most = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.0f}, {most}"


# Costs.


def cost() -> None:
    """Print the share of audited texts among honest peers.

    20,000 texts of 30 windows, over 3 stages with 5 peers each.
    """
    rng = random.Random(3)
    ledger = Ledger()
    shares: list[int] = []
    for _ in range(20_000):
        chain = [f"{rng.choice('abcde')}{i}" for i in range(3)]
        audited = rng.random() < ledger.chance(chain, RATE)
        shares.append(audited)
        if audited:
            ledger.agreed(chain, 30)
    _heading("texts", "audited")
    for start, end in ((0, 100), (100, 1000), (1000, 5000), (5000, 20_000)):
        share = sum(shares[start:end]) / (end - start)
        _row(f"{start:,} to {end:,}", f"{share:.1%}")


def _heading(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    parts = sys.argv[1:] or ["cost", "liars", "spread"]
    if "cost" in parts:
        cost()
    if "liars" in parts:
        for dtype in DTYPES:
            liars(Lab(), dtype)
    if "spread" in parts:
        spread(Lab(MORE_TEXTS))


if __name__ == "__main__":
    main()
