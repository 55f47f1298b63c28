"""How soon lies are noticed, and that honest peers are never taken for liars: ``python -m swarm.sim.audits``.

Everything but the network is real: spans of the demo target compute, texts are cut into windows and runs as the auditor
cuts them, and the ledger, the trial and the tolerance are the client's own. Takes about ten minutes on one core.
"""

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from swarm.audit.distance import distances
from swarm.audit.evidence import MAX_SAMPLES
from swarm.audit.ledger import Ledger
from swarm.audit.replay import windows
from swarm.audit.tolerance import tolerance
from swarm.audit.trial import AUDIT, FIRST, SECOND, WRITTEN, Run, Stand, Trial
from swarm.demo import locate
from swarm.demo.problems import problems
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span, Work
from swarm.sim.lies import (
    LyingSpan,
    SkippingSpan,
    When,
    always,
    cheap_weights,
    noise,
    other_weights,
    small_frames,
    unchanged,
    zeros,
)

STAGES = ((0, 4), (4, 8))
NAMES = "abc"  # three peers a stage
TEXTS, TEXT_TOKENS = 40, 96
RATE = 0.01
HONEST_AUDITS = 10_000
TRIES, RARE_TRIES = 11, 21
MOST_TEXTS = 400

Shape = Callable[[Sequence[int], int, random.Random], list[int]]  # tokens, of the prompt, -> sizes of frames


def written(tokens: Sequence[int], prompt: int, rng: random.Random) -> list[int]:
    """As frames come while a text is written with a draft: the prompt, then up to 8 tokens at a time."""
    return [len(window.tokens) for window in windows(tokens, prompt, rng)]


def one_by_one(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [prompt, *[1] * (len(tokens) - prompt)]


def at_once(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [len(tokens)]


@dataclass
class Lab:
    """The demo target, its texts, and spans of all kinds."""

    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint.open(locate("demo-target")))

    def __post_init__(self) -> None:
        tokenizer = self.checkpoint.tokenizer()
        self.head = Head.load(self.checkpoint)
        self.texts: list[tuple[list[int], int]] = []
        for problem in islice(problems(seed=23, held_out=True), TEXTS):
            prompt = tokenizer(problem.prompt).input_ids
            self.texts.append(([*prompt, *tokenizer(problem.solution).input_ids][:TEXT_TOKENS], len(prompt)))
        self.rng = random.Random(7)

    def spans(self, dtype: torch.dtype) -> list[Span]:
        return [Span.load(self.checkpoint, *stage, dtype=dtype) for stage in STAGES]

    def run(
        self, spans: Sequence[Span], tokens: Sequence[int], sizes: Sequence[int], threads: int = 1, packed: bool = False
    ) -> Tensor:
        """Hidden states ``[n, hidden]`` of a chain behind the final norm, the text being sent in frames of these sizes;
        ``packed`` with those of another session."""
        torch.set_num_threads(threads)
        caches, neighbours = ([span.new_cache() for span in spans] for _ in range(2))
        rows, start = [], 0
        for size in sizes:
            frame = torch.tensor(tokens[start : start + size])
            beside = torch.tensor(tokens[:size]) if packed else None
            for span, cache, neighbour in zip(spans, caches, neighbours, strict=True):
                works = [Work.behind(cache, frame)]
                if beside is not None:
                    works.insert(0, Work.behind(neighbour, beside))
                *others, frame = span.forward(works, span.first, span.last)
                beside = others[0] if others else None
            rows.append(frame)
            start += size
        torch.set_num_threads(1)
        return self.head.normed(torch.cat(rows))

    def sample(self, positions: range) -> Tensor:
        return torch.tensor(sorted(self.rng.sample(positions, min(MAX_SAMPLES, len(positions)))))


# Honest peers.


def spread(lab: Lab) -> None:
    """How far honest peers are apart, and how many audits of theirs disagree."""
    kinds = {"float32": [torch.float32], "bfloat16": [torch.bfloat16], "mixed": [torch.float32, torch.bfloat16]}
    _heading("dtypes", "p50", "p98", "p99.9", "largest median of a text", "limit", "audits", "disagree")
    answers = {dtype: [_variants(lab, dtype, *text) for text in lab.texts] for dtype in (torch.float32, torch.bfloat16)}
    for name, dtypes in kinds.items():
        limit = tolerance({str(dtype).removeprefix("torch.") for dtype in dtypes}, experts=False)
        apart: list[Tensor] = []
        disagree = 0
        for number in range(HONEST_AUDITS):
            text = number % len(lab.texts)
            one, other = (lab.rng.choice(answers[dtype][text]) for dtype in (dtypes * 2)[:2])
            while other is one:
                other = lab.rng.choice(answers[dtypes[-1]][text])
            positions = lab.sample(range(lab.texts[text][1] - 1, len(one)))
            apart.append(distances(one[positions], other[positions]))
            disagree += not limit.holds(apart[-1])
        every = torch.cat(apart)
        middle = max(float(each.median()) for each in apart)
        figures = " | ".join(f"{_quantile(every, q):.1e}" for q in (0.5, 0.98, 0.999))
        print(f"| {name} | {figures} | {middle:.1e} | {limit.median:.0e} | {len(apart):,} | {disagree} |", flush=True)


def _variants(lab: Lab, dtype: torch.dtype, tokens: Sequence[int], prompt: int) -> list[Tensor]:
    """One text, computed by honest peers with one and two threads, in all shapes, alone and beside others."""
    spans = lab.spans(dtype) if dtype not in _SPANS else _SPANS[dtype]
    _SPANS[dtype] = spans
    ways: list[tuple[Shape, int, bool]] = [
        (written, 1, False),
        (written, 2, False),
        (written, 1, True),
        (one_by_one, 1, False),
        (at_once, 1, False),
        (at_once, 2, True),
    ]
    return [lab.run(spans, tokens, way(tokens, prompt, lab.rng), n, packed) for way, n, packed in ways]


_SPANS: dict[torch.dtype, list[Span]] = {}


def _quantile(values: Tensor, q: float) -> float:
    return float(values.kthvalue(max(1, round(q * len(values)))).values)


# Liars.


@dataclass
class Found:
    """What became of a liar."""

    noticed: int  # windows of it until the first disagreement
    banned: int | None  # and until it was banned
    innocent: int  # honest peers that were banned
    audited: int  # token-layers
    generated: int


class Swarm:
    """Three peers a stage, one of which lies, and a client; texts go over chains as the router makes them, but by lot
    where it would take the fastest: the liar is the fastest."""

    def __init__(self, lab: Lab, honest: Sequence[Span], lying: Span, seed: int, replay: Shape = written) -> None:
        self._lab, self._replay = lab, replay
        self._rng = random.Random(seed)
        torch.manual_seed(seed)
        self._stage = self._rng.randrange(len(STAGES)) if lying.first is None else int(lying.first > 0)
        self.liar = f"a{self._stage}"
        self._spans = {name + str(i): honest[i] for i in range(len(STAGES)) for name in NAMES}
        self._spans[self.liar] = lying
        self._tolerance = tolerance({str(honest[0].dtype).removeprefix("torch.")}, experts=False)
        self.ledger = Ledger()
        self.banned: list[str] = []
        self.audited = self.generated = 0

    def chain(self) -> list[str]:
        """The liar if it may, else others by lot."""
        ledger, banned = self.ledger, set(self.banned)
        free = [[name + str(i) for name in NAMES if name + str(i) not in banned] for i in range(len(STAGES))]
        suspects = [peer for peer in ledger.suspects if peer not in ledger.worse]
        while True:
            chain = [self.liar if self.liar in there else self._rng.choice(there) for there in free]
            doubtful = [peer for peer in suspects if peer in chain]
            crowded = next((there for there in free if doubtful[1:] and doubtful[0] in there and len(there) > 1), None)
            if crowded is None:
                return chain
            crowded.remove(doubtful[0])

    def write(self, most_texts: int) -> Found:
        """Write texts until the liar is banned, or as many as these."""
        seen, noticed = 0, None
        for _ in range(most_texts):
            tokens, prompt = self._rng.choice(self._lab.texts)
            chain = self.chain()
            sizes = written(tokens, prompt, self._rng)
            answer = self._lab.run([self._spans[peer] for peer in chain], tokens, sizes)
            self.generated += len(tokens) * STAGES[-1][1]
            seen += (len(sizes) - 1) * (self.liar in chain)
            if self._rng.random() < self.ledger.chance(chain, RATE):
                wrong = self._audit(chain, tokens, prompt, answer, len(sizes))
                noticed = seen if wrong and noticed is None else noticed
            if self.liar in self.banned:
                break
        banned = seen if self.liar in self.banned else None
        innocent = sum(peer != self.liar for peer in self.banned)
        return Found(noticed or seen, banned, innocent, self.audited, self.generated)

    def _audit(self, chain: list[str], tokens: list[int], prompt: int, answer: Tensor, count: int) -> bool:
        """Whether the answers differed."""
        stands = [self._stand(first, i) for i, first in enumerate(chain)]
        if all(stand.second is None for stand in stands):
            return False
        positions = self._lab.sample(range(prompt - 1, len(tokens)))

        def run(which: Run) -> Tensor:
            spans = [self._spans[stand.party(each)[0]] for stand, each in zip(stands, which, strict=True)]
            self.audited += len(tokens) * STAGES[-1][1]
            return self._lab.run(spans, tokens, self._replay(tokens, prompt, self._rng))[positions]

        def same(one: Tensor, other: Tensor) -> bool:
            return self._tolerance.holds(distances(one, other))

        seconds = tuple(FIRST if stand.second is None else SECOND for stand in stands)
        answers = {WRITTEN: answer[positions], AUDIT: run(seconds)}
        if same(answers[WRITTEN], answers[AUDIT]):
            checked = [stand.first[0] for stand in stands if stand.second is not None]
            self.ledger.agreed(checked, min(count, len(positions)))
            return False
        trial = Trial(stands)
        while trial.step is not None:
            number = len(answers)
            answers[number] = run(trial.step.run)
            trial.tell([same(answers[other], answers[number]) for other in trial.step.against])
        assert trial.outcome is not None
        for peer in trial.outcome.convicted:
            self.ledger.convicted(peer)
            self.banned.append(peer)
        for group in trial.outcome.suspected:
            self.banned += self.ledger.disagreed(group)
        for group in trial.outcome.disputed:
            self.banned += self.ledger.disagreed(group, dispute=True)
        return True

    def _stand(self, first: str, i: int) -> Stand:
        avoid = {first, *self.banned, *self.ledger.suspects}
        others = [(name + str(i),) for name in NAMES if name + str(i) not in avoid]
        self._rng.shuffle(others)
        return Stand((first,), *others[:2])


def liars(lab: Lab, dtype: torch.dtype) -> None:
    """Windows until each kind of liar is noticed, and banned."""
    name = str(dtype).removeprefix("torch.")
    honest = lab.spans(dtype)
    first, last = STAGES[1]
    chance = random.Random(1)

    def lies(lie: Callable[[Tensor, Tensor], Tensor], when: When = always) -> Span:
        return LyingSpan(honest[1], lie, when)  # type: ignore[return-value]

    def rarely(_: Work) -> bool:
        return chance.random() < 0.01

    kinds: list[tuple[str, Span, Shape, int]] = [
        ("random noise", lies(noise), written, TRIES),
        ("zeroed output", lies(zeros), written, TRIES),
        ("returned input", lies(unchanged), written, TRIES),
        ("half of the layers", SkippingSpan(honest[1]), written, TRIES),  # type: ignore[list-item]
        ("another model's weights", other_weights(lab.checkpoint, first, last, dtype), written, TRIES),
        (f"4-bit weights as {name}", cheap_weights(lab.checkpoint, first, last, dtype), written, TRIES),
        ("noise in 1 % of frames", lies(noise, rarely), written, RARE_TRIES),
        ("two-faced, by prefill shape", lies(noise, small_frames), written, TRIES),
        ("the same, if audits were prefills", lies(noise, small_frames), at_once, TRIES),
    ]
    columns = (f"{each}: median, 95 %" for each in ("windows until noticed", "until banned"))
    _heading(f"lies of a {name} peer", *columns, "not banned", "innocent banned")
    for lie, span, shape, tries in kinds:
        found = [Swarm(lab, honest, span, seed, shape).write(MOST_TEXTS) for seed in range(tries)]
        banned = [each.banned for each in found if each.banned is not None]
        cells = _middle_and_most([each.noticed for each in found]), _middle_and_most(banned)
        innocent = sum(each.innocent for each in found)
        print(f"| {lie} | {cells[0]} | {cells[1]} | {len(found) - len(banned)} of {tries} | {innocent} |", flush=True)


def _heading(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def _middle_and_most(counts: Sequence[int]) -> str:
    if not counts:
        return "-"
    ordered = sorted(counts)
    return f"{statistics.median(ordered):.0f}, {ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]}"


def cost() -> None:
    """What audits cost where everybody is honest: 20,000 texts of 30 windows over 3 stages with 5 peers each."""
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
        print(f"| {start:,} to {end:,} | {sum(shares[start:end]) / (end - start):.1%} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    parts = sys.argv[1:] or ["cost", "liars", "spread"]
    lab = Lab()
    if "cost" in parts:
        cost()
    if "liars" in parts:
        liars(lab, torch.float32)
        liars(lab, torch.bfloat16)
    if "spread" in parts:
        spread(lab)


if __name__ == "__main__":
    main()
