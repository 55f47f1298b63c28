"""How soon lies are noticed, and that honest peers are never taken for liars:
``python -m swarm.sim.audits``.

Everything but the network is real: spans of the demo target compute, texts are cut into windows and
runs as the auditor cuts them, and the ledger, the trial and the tolerance are the client's own.
Takes a quarter of an hour on one core.
"""

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from swarm.audit.evidence import MAX_SAMPLES
from swarm.audit.ledger import Ledger
from swarm.audit.replay import replay_windows
from swarm.audit.tolerance import distances, tolerance
from swarm.audit.trial import AUDIT, FIRST, SECOND, WRITTEN, Run, Stand, Trial
from swarm.demo import locate
from swarm.demo.problems import problems
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span, Work
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

STAGES = ((0, 4), (4, 8))
NAMES = "abc"  # three peers a stage
LIAR = "a1"
TEXTS, MORE_TEXTS, TEXT_TOKENS = 20, 24, 96
DTYPES = (torch.float32, torch.bfloat16)
VARIANTS = 4  # of an honest answer to a text, computed in frames of other sizes
RATE = 0.01
HONEST_AUDITS = 10_000
TRIES, RARE_TRIES = 7, 15
MOST_TEXTS = 300

# tokens, of the prompt, -> sizes of frames
Shape = Callable[[Sequence[int], int, random.Random], list[int]]


def written(tokens: Sequence[int], prompt: int, rng: random.Random) -> list[int]:
    """As frames come while a text is written with a draft: the prompt, then up to 8 tokens at a
    time."""
    return [len(window.tokens) for window in replay_windows(tokens, prompt, rng)]


def one_by_one(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [prompt, *[1] * (len(tokens) - prompt)]


def at_once(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [len(tokens)]


@dataclass
class Lab:
    """The demo target, its texts, and spans of all kinds."""

    count: int = TEXTS
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint.open(locate("demo-target")))

    def __post_init__(self) -> None:
        tokenizer = self.checkpoint.tokenizer()
        self.head = Head.load(self.checkpoint)
        self.texts: list[tuple[list[int], int]] = []
        for problem in islice(problems(seed=23, held_out=True), self.count):
            prompt = tokenizer(problem.prompt).input_ids
            self.texts.append(
                ([*prompt, *tokenizer(problem.solution).input_ids][:TEXT_TOKENS], len(prompt))
            )
        self.rng = random.Random(7)
        self._honest: dict[tuple[int, int, int], Tensor] = {}

    def spans(self, dtype: torch.dtype) -> list[Span]:
        return [Span.load(self.checkpoint, *stage, dtype=dtype) for stage in STAGES]

    def run(self, spans: Sequence[Span], tokens: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Hidden states ``[n, hidden]`` of a chain behind the final norm; the text is sent in
        frames of these sizes."""
        rows = torch.tensor(tokens)
        for span in spans:
            rows = self.compute(span, rows, sizes)
        return self.head.normed(rows)

    @staticmethod
    def compute(
        span: Span, rows: Tensor, sizes: Sequence[int], threads: int = 1, packed: bool = False
    ) -> Tensor:
        """What a span makes of a text in frames of these sizes; ``packed`` with those of another
        session."""
        torch.set_num_threads(threads)
        cache, neighbour = span.new_cache(), span.new_cache()
        outputs = []
        for frame in rows.split_with_sizes(list(sizes)):
            works = [Work.behind(cache, frame)]
            if packed:
                works.insert(0, Work.behind(neighbour, rows[: len(frame)]))
            outputs.append(span.forward(works, span.first, span.last)[-1])
        torch.set_num_threads(1)
        return torch.cat(outputs)

    def honest(self, spans: Sequence[Span], text: int) -> Tensor:
        """What honest spans say to a text; it is computed only a few times, each time in other
        frames."""
        key = id(spans[0]), text, self.rng.randrange(VARIANTS)
        if key not in self._honest:
            tokens, prompt = self.texts[text]
            self._honest[key] = self.run(spans, tokens, written(tokens, prompt, self.rng))
        return self._honest[key]

    def sample(self, positions: range) -> Tensor:
        return torch.tensor(sorted(self.rng.sample(positions, min(MAX_SAMPLES, len(positions)))))


# Honest peers.


def spread(lab: Lab) -> None:
    """How far honest peers are apart, and how many audits of theirs disagree; each audit compares
    other answers."""
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
            one, other = ones[text][i], others[text][j]
            positions = lab.sample(range(lab.texts[text][1] - 1, len(one)))
            apart.append(distances(one[positions], other[positions]))
        disagree = sum(not limit.holds(each) for each in apart)
        every, middle = torch.cat(apart), max(float(each.median()) for each in apart)
        figures = " | ".join(f"{_quantile(every, q):.1e}" for q in (0.5, 0.98, 0.999))
        print(
            f"| {name} | {figures} | {middle:.1e} | {limit.median:.0e} | {len(apart):,} |"
            f" {disagree} |",
            flush=True,
        )


def _variants(lab: Lab, spans: Sequence[Span], tokens: Sequence[int], prompt: int) -> list[Tensor]:
    """One text, computed by honest peers with one and two threads, in all shapes, alone and beside
    others; what the first stage computed in one of these ways, the second one computes on in each.
    """
    ways: list[tuple[Shape, int, bool]] = [
        (written, 1, False),
        (written, 2, False),
        (written, 1, True),
        (at_once, 1, False),
        (at_once, 2, True),
    ]
    between = [
        lab.compute(spans[0], torch.tensor(tokens), shape(tokens, prompt, lab.rng), threads, packed)
        for shape, threads, packed in [*ways, (one_by_one, 1, False)]
    ]
    return [
        lab.head.normed(
            lab.compute(spans[1], rows, shape(tokens, prompt, lab.rng), threads, packed)
        )
        for rows in between
        for shape, threads, packed in ways
    ]


def _quantile(values: Tensor, q: float) -> float:
    return float(values.kthvalue(max(1, round(q * len(values)))).values)


# Liars.


@dataclass
class Found:
    """What became of a liar."""

    noticed: int  # windows of it until the first disagreement
    banned: int | None  # and until it was banned
    innocent: int  # honest peers that were banned


@dataclass(frozen=True)
class Liar:
    """A peer of the second stage that lies in a share of its frames."""

    name: str
    span: Span
    share: float = 1.0
    replay: Shape = written  # how audits are sent


class Swarm:
    """Three peers a stage, one of which lies, and a client; texts go over chains as the router
    makes them; the liar is the fastest, and the others are equal."""

    def __init__(self, lab: Lab, honest: Sequence[Span], liar: Liar, seed: int) -> None:
        self._lab, self._honest, self._lying = lab, honest, liar
        self._rng = random.Random(seed)
        torch.manual_seed(seed)
        self._tolerance = tolerance({str(honest[0].dtype).removeprefix("torch.")}, experts=False)
        self._ledger = Ledger()
        self._banned: list[str] = []

    def write(self, most_texts: int) -> Found:
        """Write texts until the liar is banned, or as many as these."""
        seen, noticed = 0, None
        for _ in range(most_texts):
            text, chain = self._rng.randrange(len(self._lab.texts)), self._chain()
            tokens, prompt = self._lab.texts[text]
            sizes = written(tokens, prompt, self._rng)
            answer = self._answer(chain, text, sizes)
            seen += (len(sizes) - 1) * (LIAR in chain)
            if self._rng.random() < self._ledger.chance(chain, RATE) and self._audit(
                chain, text, answer, len(sizes)
            ):
                noticed = seen if noticed is None else noticed
            if LIAR in self._banned:
                break
        innocent = sum(peer != LIAR for peer in self._banned)
        return Found(
            seen if noticed is None else noticed, seen if LIAR in self._banned else None, innocent
        )

    def _chain(self) -> list[str]:
        """The liar if it may, else others by lot."""
        free = [
            [name + str(i) for name in NAMES if name + str(i) not in self._banned]
            for i in range(len(STAGES))
        ]
        for worse in self._ledger.worse:
            free = [[peer for peer in there if peer != worse] or there for there in free]
        while True:
            chain = [LIAR if LIAR in there else self._rng.choice(there) for there in free]
            doubtful = [peer for peer in self._ledger.suspects if peer in chain][:-1]
            crowded = [
                (peer, there)
                for peer in doubtful
                for there in free
                if peer in there and len(there) > 1
            ]
            if not crowded:
                return chain
            peer, there = crowded[0]
            there.remove(peer)

    def _answer(self, chain: Sequence[str], text: int, sizes: Sequence[int]) -> Tensor:
        lies = [self._rng.random() < self._lying.share for _ in sizes]
        if LIAR not in chain or not any(lies):
            return self._lab.honest(self._honest, text)
        if isinstance(self._lying.span, LyingSpan):
            self._lying.span.plan = lies
        return self._lab.run([self._honest[0], self._lying.span], self._lab.texts[text][0], sizes)

    def _audit(self, chain: list[str], text: int, answer: Tensor, count: int) -> bool:
        """Whether the answers differed."""
        tokens, prompt = self._lab.texts[text]
        stands = [self._stand(first, i) for i, first in enumerate(chain)]
        if all(stand.second is None for stand in stands):
            return False
        positions = self._lab.sample(range(prompt - 1, len(tokens)))

        def run(which: Run) -> Tensor:
            peers = [stand.party(each)[0] for stand, each in zip(stands, which, strict=True)]
            return self._answer(peers, text, self._lying.replay(tokens, prompt, self._rng))[
                positions
            ]

        def same(one: Tensor, other: Tensor) -> bool:
            return self._tolerance.holds(distances(one, other))

        seconds = tuple(FIRST if stand.second is None else SECOND for stand in stands)
        answers = {WRITTEN: answer[positions], AUDIT: run(seconds)}
        if same(answers[WRITTEN], answers[AUDIT]):
            checked = [stand.first[0] for stand in stands if stand.second is not None]
            self._ledger.agreed(checked, min(count, len(positions)))
            return False
        trial = Trial(stands)
        while trial.step is not None:
            number = len(answers)
            answers[number] = run(trial.step.run)
            trial.tell([same(answers[other], answers[number]) for other in trial.step.against])
        assert trial.outcome is not None
        for peer in trial.outcome.convicted:
            self._ledger.convicted(peer)
            self._banned.append(peer)
        for group in trial.outcome.suspected:
            self._banned += self._ledger.disagreed(group)
        for group in trial.outcome.disputed:
            self._banned += self._ledger.disagreed(group, dispute=True)
        return True

    def _stand(self, first: str, i: int) -> Stand:
        avoid = {first, *self._banned, *self._ledger.suspects}
        others = [(name + str(i),) for name in NAMES if name + str(i) not in avoid]
        self._rng.shuffle(others)
        return Stand((first,), *others[:2])


def liars(lab: Lab, dtype: torch.dtype) -> None:
    """Windows until each kind of liar is noticed, and banned."""
    name, honest = str(dtype).removeprefix("torch."), lab.spans(dtype)
    span, stage, checkpoint = honest[1], STAGES[1], lab.checkpoint
    kinds = [
        Liar("random noise", LyingSpan(span, noise)),
        Liar("zeroed output", LyingSpan(span, zeros)),
        Liar("returned input", LyingSpan(span, unchanged)),
        Liar("half of the layers", SkippingSpan(span)),
        Liar("another model's weights", other_weights(checkpoint, *stage, dtype)),
        Liar(f"4-bit weights as {name}", cheap_weights(checkpoint, *stage, dtype)),
        Liar("noise in 1 % of frames", LyingSpan(span, noise), share=0.01),
        Liar("honest to prompts and prefills", LyingSpan(span, noise, small_frames)),
        Liar(
            "the same, if audits were prefills",
            LyingSpan(span, noise, small_frames),
            replay=at_once,
        ),
    ]
    columns = (f"{each}: median, 95 %" for each in ("windows until noticed", "until banned"))
    _heading(f"lies of a {name} peer", *columns, "not banned", "innocent banned")
    for liar in kinds:
        tries = TRIES if liar.share == 1.0 else RARE_TRIES
        found = [Swarm(lab, honest, liar, seed).write(MOST_TEXTS) for seed in range(tries)]
        banned = [each.banned for each in found if each.banned is not None]
        cells = _middle_and_most([each.noticed for each in found]), _middle_and_most(banned)
        innocent = sum(each.innocent for each in found)
        print(
            f"| {liar.name} | {cells[0]} | {cells[1]} | {tries - len(banned)} of {tries} |"
            f" {innocent} |",
            flush=True,
        )


def _heading(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def _middle_and_most(counts: Sequence[int]) -> str:
    if not counts:
        return "-"
    ordered = sorted(counts)
    return (
        f"{statistics.median(ordered):.0f},"
        f" {ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]}"
    )


def cost() -> None:
    """What audits cost where everybody is honest: 20,000 texts of 30 windows over 3 stages with 5
    peers each."""
    rng, ledger = random.Random(3), Ledger()
    shares: list[int] = []
    for _ in range(20_000):
        chain = [f"{rng.choice('abcde')}{i}" for i in range(3)]
        audited = rng.random() < ledger.chance(chain, RATE)
        shares.append(audited)
        if audited:
            ledger.agreed(chain, 30)
    _heading("texts", "audited")
    for start, end in ((0, 100), (100, 1000), (1000, 5000), (5000, 20_000)):
        print(
            f"| {start:,} to {end:,} | {sum(shares[start:end]) / (end - start):.1%} |", flush=True
        )


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
