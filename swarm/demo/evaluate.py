"""The figures of the demo models' card: ``python -m swarm.demo.evaluate`` prints them."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from swarm.demo import DRAFT, MODELS, TARGET
from swarm.demo.problems import WordProblem, answer_of, problems

SEED = 500  # of the held-out problems; training never sees a held-out problem of any seed
MAX_NEW_TOKENS = 200
BATCH = 50
NEAR_TIE_NATS = 0.7  # how much less likely than the target's choice an equally good one may be


def solve(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[WordProblem]
) -> Iterator[Tensor]:
    """Yield the greedy solution of each problem: new token ids ``[n]``, the end of the text too."""
    for start in range(0, len(asked), BATCH):
        prompts = [problem.prompt for problem in asked[start : start + BATCH]]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        outputs = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        for output in outputs[:, inputs.input_ids.shape[1] :]:
            ends = (output == tokenizer.eos_token_id).nonzero()
            yield output[: int(ends[0]) + 1] if len(ends) else output


def accuracy(
    tokenizer: PreTrainedTokenizerBase, asked: Sequence[WordProblem], solutions: Sequence[Tensor]
) -> float:
    """Return the share of problems whose solution ends in the right answer."""
    texts = tokenizer.batch_decode(solutions, skip_special_tokens=True)
    pairs = zip(texts, asked, strict=True)
    return sum(answer_of(text) == problem.answer for text, problem in pairs) / len(asked)


@torch.inference_mode()
def agreement(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[WordProblem],
    solutions: Sequence[Tensor],
) -> tuple[float, float]:
    """Compare the draft's greedy choices with the target's own solutions.

    Returns:
        The share of tokens that the draft would have chosen, and the share of its misses that are
        near-ties under the target (within `NEAR_TIE_NATS`).
    """
    tokens = agreed = near_ties = 0
    for problem, solution in zip(asked, solutions, strict=True):
        prompt = torch.tensor(tokenizer(problem.prompt).input_ids)
        text = torch.cat([prompt, solution])[None]
        rows = slice(len(prompt) - 1, -1)
        choices = draft(text).logits[0, rows].argmax(-1)
        log_p = target(text).logits[0, rows].log_softmax(-1)
        deficits = log_p.max(-1).values - log_p.gather(-1, choices[:, None])[:, 0]
        misses = choices != solution
        tokens += len(solution)
        agreed += int((~misses).sum())
        near_ties += int((deficits[misses] <= NEAR_TIE_NATS).sum())
    return agreed / tokens, near_ties / max(1, tokens - agreed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--problems", type=int, default=500)
    args = parser.parse_args()
    asked = list(islice(problems(SEED, held_out=True), args.problems))
    tokenizer = AutoTokenizer.from_pretrained(args.models / TARGET)
    target, draft = (
        AutoModelForCausalLM.from_pretrained(args.models / name, dtype=torch.float32).eval()
        for name in (TARGET, DRAFT)
    )
    for name, model in ((TARGET, target), (DRAFT, draft)):
        solutions = list(solve(model, tokenizer, asked))
        solved = accuracy(tokenizer, asked, solutions)
        share = f"{solved:.1%} of {len(asked)} held-out problems solved"
        print(f"{name}: {model.num_parameters():,} parameters, {share}")
        if model is target:
            agreed, near_ties = agreement(target, draft, tokenizer, asked, solutions)
    print(f"greedy agreement of the draft along the target's text: {agreed:.1%} of tokens")
    print(f"of its misses, {near_ties:.1%} are within {NEAR_TIE_NATS} nats of the target's choice")


if __name__ == "__main__":
    main()
