"""The effect of quantized weights: ``python -m swarm.eval.quantization`` prints the table.

Spans of a model's layers compute as they do on peers. Along worked solutions of held-out word
problems, the table shows how well each quantization predicts them, and how far its predictions are
from those of the unquantized weights. Then each quantization solves the problems itself. Speeds are
measured on this computer's CPU; the quantizations take turns, frame by frame.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from swarm.demo import TARGET, locate
from swarm.demo.problems import WordProblem, answer_of, problems
from swarm.errors import SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.quantization import QUANTIZATIONS, named
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.util import logs

SEED = 1000  # of the held-out problems
MAX_NEW_TOKENS = 200
TOGETHER = 50  # problems solved in the same forwards
FRAMES = (1, 16)  # tokens: plain decoding, and a window of drafts
TIMES = 40  # frames of each size
CONTEXT = 64  # tokens before each frame
COLUMNS = ("", "layers", "perplexity", "same choice", "KL, nats", "solved")


@dataclass(frozen=True)
class QuantizationFigures:
    """What was measured of one quantization.

    Attributes:
        nbytes: memory of all layers and the embedding.
        perplexity: of the solutions' tokens.
        same_choice: share of these tokens at which its likeliest token is the unquantized model's.
        kl_nats: mean KL divergence of its distribution from the unquantized model's.
        solved: share of the problems that it solves, greedily.
        speeds: tokens per second, by the size of a frame.
    """

    name: str
    nbytes: int
    perplexity: float
    same_choice: float
    kl_nats: float
    solved: float
    speeds: Mapping[int, float]


def measure(
    model: str, asked: Sequence[WordProblem], names: Sequence[str] = ("none", *QUANTIZATIONS)
) -> list[QuantizationFigures]:
    """Measure all quantizations on the same problems; the first is the baseline of the others.

    Raises:
        SwarmError: what `Checkpoint.open`, `Span.load` and `Head.load` raise.
    """
    checkpoint = Checkpoint.open(model)
    tokenizer = checkpoint.tokenizer()
    head = Head.load(checkpoint)
    checkpoints = [Checkpoint.open(model, named(name)) for name in names]
    spans = [Span.load(each, 0, checkpoint.num_layers) for each in checkpoints]
    sums = torch.zeros(len(spans), 3, dtype=torch.float64)
    tokens = 0
    for problem in asked:
        prompt = tokenizer(problem.prompt).input_ids
        text = torch.tensor([*prompt, *tokenizer(problem.solution).input_ids])
        rows = [_log_p(span, head, text)[len(prompt) - 1 : -1] for span in spans]
        sums += torch.stack([_compare(rows[0], row, text[len(prompt) :]) for row in rows])
        tokens += len(text) - len(prompt)
    speeds = _speeds(spans)
    return [
        QuantizationFigures(
            name,
            span.nbytes,
            perplexity=float((loss / tokens).exp()),
            same_choice=float(same) / tokens,
            kl_nats=float(kl) / tokens,
            solved=_solved(span, head, tokenizer, checkpoint.eos_token_ids, asked),
            speeds=speed,
        )
        for name, span, (loss, same, kl), speed in zip(names, spans, sums, speeds, strict=True)
    ]


def markdown(figures: Sequence[QuantizationFigures]) -> str:
    """Return a table. Speeds are shares of the first row's, which are in tokens per second."""
    plain = figures[0]
    lines = [
        [*COLUMNS, *(f"frames of {size}" for size in FRAMES)],
        ["---", *["---:"] * (len(COLUMNS) - 1 + len(FRAMES))],
    ]
    for each in figures:
        line = [
            each.name,
            f"{each.nbytes / 1e6:.2f} MB",
            f"{each.perplexity:.3f}",
            f"{each.same_choice:.1%}",
            f"{each.kl_nats:.1e}",
            f"{each.solved:.1%}",
        ]
        if each is plain:
            line += [f"{each.speeds[size]:,.0f}/s" for size in FRAMES]
        else:
            line += [f"{each.speeds[size] / plain.speeds[size]:.0%}" for size in FRAMES]
        lines.append(line)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _log_p(span: Span, head: Head, text: Tensor) -> Tensor:
    return head.logits(span.forward([Work.behind(span.new_cache(), text)])[0]).log_softmax(-1)


def _compare(plain: Tensor, other: Tensor, tokens: Tensor) -> Tensor:
    """Return sums over the positions: the tokens' loss, equal choices, and the KL divergence."""
    loss = -other.gather(-1, tokens[:, None]).sum()
    same = (plain.argmax(-1) == other.argmax(-1)).sum()
    return torch.stack([loss, same, (plain.exp() * (plain - other)).sum()]).double()


def _solved(
    span: Span, head: Head, tokenizer: Any, stops: frozenset[int], asked: Sequence[WordProblem]
) -> float:
    prompts = [tokenizer(problem.prompt).input_ids for problem in asked]
    tokens: list[list[int]] = []
    for start in range(0, len(prompts), TOGETHER):
        tokens += _greedy(span, head, prompts[start : start + TOGETHER], stops)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    pairs = zip(texts, asked, strict=True)
    return sum(answer_of(text) == problem.answer for text, problem in pairs) / len(asked)


def _greedy(
    span: Span, head: Head, prompts: Sequence[list[int]], stops: frozenset[int]
) -> list[list[int]]:
    """Return the new tokens of all texts, decoded side by side until each has ended."""
    texts: list[list[int]] = [[] for _ in prompts]
    caches = [span.new_cache() for _ in prompts]
    going = {index: torch.tensor(prompt) for index, prompt in enumerate(prompts)}
    for _ in range(MAX_NEW_TOKENS):
        batch = [Work.behind(caches[index], tokens) for index, tokens in going.items()]
        outputs = span.forward(batch)
        choices = head.logits(torch.stack([output[-1] for output in outputs])).argmax(-1)
        for index, choice in zip(list(going), choices, strict=True):
            texts[index].append(int(choice))
            going[index] = choice[None]
            if int(choice) in stops:
                del going[index]
        if not going:
            break
    return texts


def _speeds(spans: Sequence[Span]) -> list[dict[int, float]]:
    times: list[dict[int, list[float]]] = [{size: [] for size in FRAMES} for _ in spans]
    for _ in range(TIMES):
        for size in FRAMES:
            for span, taken in zip(spans, times, strict=True):
                cache = span.new_cache()
                span.forward([Work.behind(cache, torch.zeros(CONTEXT, dtype=torch.long))])
                started = time.perf_counter()
                span.forward([Work.behind(cache, torch.zeros(size, dtype=torch.long))])
                taken[size].append(time.perf_counter() - started)
    return [
        {size: size / statistics.median(each) for size, each in taken.items()} for taken in times
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=TARGET, help="a folder or a hub id")
    parser.add_argument("--problems", type=int, default=100)
    args = parser.parse_args()
    logs.set_up()
    # On a busy machine, or with a small model, several threads mostly wait for each other.
    torch.set_num_threads(1)
    asked = list(islice(problems(SEED, held_out=True), args.problems))
    try:
        print(markdown(measure(locate(args.model), asked)))
    except SwarmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
