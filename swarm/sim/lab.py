"""The demo target's spans and texts, computed in frames of many sizes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from swarm.audit.evidence import MAX_SAMPLES
from swarm.audit.replay import replay_windows
from swarm.demo import TARGET, locate
from swarm.demo.problems import problems
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work

STAGES = ((0, 4), (4, 8))
TEXTS = 20
TEXT_TOKENS = 96
VARIANTS = 4  # of an honest answer to a text, computed in frames of different sizes

# (tokens, tokens of the prompt, randomness) -> sizes of frames
FrameSizes = Callable[[Sequence[int], int, random.Random], list[int]]


def written(tokens: Sequence[int], prompt: int, rng: random.Random) -> list[int]:
    """Return frames of a text written with a draft: the prompt, then up to 8 tokens at a time."""
    return [len(window.tokens) for window in replay_windows(tokens, prompt, rng)]


def one_by_one(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [prompt, *[1] * (len(tokens) - prompt)]


def at_once(tokens: Sequence[int], prompt: int, _: random.Random) -> list[int]:
    return [len(tokens)]


@dataclass
class Lab:
    """The demo target, its texts, and spans of all kinds."""

    count: int = TEXTS
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint.open(locate(TARGET)))

    def __post_init__(self) -> None:
        tokenizer = self.checkpoint.tokenizer()
        self.head = Head.load(self.checkpoint)
        self.texts: list[tuple[list[int], int]] = []  # tokens, and how many are the prompt
        for problem in islice(problems(seed=23, held_out=True), self.count):
            prompt = tokenizer(problem.prompt).input_ids
            solution = tokenizer(problem.solution).input_ids
            self.texts.append(([*prompt, *solution][:TEXT_TOKENS], len(prompt)))
        self.rng = random.Random(7)
        self._honest: dict[tuple[int, int, int], Tensor] = {}

    def spans(self, dtype: torch.dtype) -> list[Span]:
        return [Span.load(self.checkpoint, *stage, dtype=dtype) for stage in STAGES]

    def run(self, spans: Sequence[Span], tokens: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Return a chain's hidden states ``[n, hidden]`` for a text, behind the final norm.

        The text is sent in frames of these sizes.
        """
        rows = torch.tensor(tokens)
        for span in spans:
            rows = self.compute(span, rows, sizes)
        return self.head.normed(rows)

    @staticmethod
    def compute(
        span: Span, rows: Tensor, sizes: Sequence[int], threads: int = 1, packed: bool = False
    ) -> Tensor:
        """Return a span's outputs for a text in frames of these sizes.

        Args:
            packed: compute each frame together with one of another session.
        """
        torch.set_num_threads(threads)
        cache = span.new_cache()
        neighbour = span.new_cache()
        outputs = []
        for frame in rows.split_with_sizes(list(sizes)):
            works = [Work.behind(cache, frame)]
            if packed:
                works.insert(0, Work.behind(neighbour, rows[: len(frame)]))
            outputs.append(span.forward(works, span.first, span.last)[-1])
        torch.set_num_threads(1)
        return torch.cat(outputs)

    def honest(self, spans: Sequence[Span], text: int) -> Tensor:
        """Return honest spans' hidden states for a text.

        They are computed only `VARIANTS` times, each time in other frames.
        """
        key = id(spans[0]), text, self.rng.randrange(VARIANTS)
        if key not in self._honest:
            tokens, prompt = self.texts[text]
            self._honest[key] = self.run(spans, tokens, written(tokens, prompt, self.rng))
        return self._honest[key]

    def sample(self, positions: range) -> Tensor:
        """Return as many of these positions as an audit compares, ascending."""
        return torch.tensor(sorted(self.rng.sample(positions, min(MAX_SAMPLES, len(positions)))))
