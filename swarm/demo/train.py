"""Train the demo models: ``python -m swarm.demo.train target`` and then ``... draft``.

Both learn from problems made on the fly (`swarm.demo.problems`), no text twice. Muon (Jordan et al.
2024) optimises matrices, AdamW everything else; the learning rate warms up, stays, and falls
linearly to zero over the last part. Only solutions count for the loss, questions do not.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from swarm.demo import MODELS, TARGET
from swarm.demo.problems import drills, problems
from swarm.demo.tokenizer import train_tokenizer
from swarm.distill.muon import Muon
from swarm.util.averages import ewma

WARMUP_SHARE = 0.02  # of the training
DECAY_SHARE = 0.6  # of the training
LOSS_FADE = 0.95  # what earlier steps count in the loss that is printed
DRILL_SHARE = (0.5, 0.1)  # of the texts, at the start and at the end of training
IGNORED = -100  # label of a token that does not count for the loss


@dataclass(frozen=True)
class DemoRecipe:
    """Shape and training of one model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    tokens: int
    batch_tokens: int
    matrix_lr: float
    lr: float
    seed: int


RECIPES = {
    "target": DemoRecipe(
        192, 512, 8, 6, tokens=9_000_000, batch_tokens=4096, matrix_lr=0.02, lr=3e-3, seed=1
    ),
    "draft": DemoRecipe(
        112, 256, 2, 4, tokens=6_000_000, batch_tokens=4096, matrix_lr=0.02, lr=3e-3, seed=2
    ),
}


def build(recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Return a model of the recipe's shape with random weights."""
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            head_dim=recipe.hidden // recipe.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def examples(
    recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[list[int], int]]:
    """Yield examples without end, with a falling share of drills.

    Each is (token ids, number of leading ids that serve as context only).
    """
    rng = random.Random(recipe.seed)
    stories = problems(recipe.seed, held_out=False)
    sums = drills(recipe.seed)
    seen = 0
    while True:
        progress = min(1.0, seen / recipe.tokens)
        if rng.random() < DRILL_SHARE[0] + progress * (DRILL_SHARE[1] - DRILL_SHARE[0]):
            ids = tokenizer(next(sums)).input_ids
            context = 3
        else:
            problem = next(stories)
            ids = tokenizer(problem.text).input_ids
            context = len(tokenizer(problem.prompt).input_ids)
        ids.append(tokenizer.eos_token_id)
        seen += len(ids)
        yield ids, context


def batches(
    recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (input ids, labels) without end, each [rows, length]; texts of like length together."""
    rng = random.Random(recipe.seed)
    stream = examples(recipe, tokenizer)
    while True:
        some = islice(stream, 16 * recipe.batch_tokens // 128)
        pool = sorted(some, key=lambda example: len(example[0]))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example[0]) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            inputs = torch.full((len(group), length), tokenizer.pad_token_id)
            labels = torch.full((len(group), length), IGNORED)
            for row, (ids, context) in enumerate(group):
                inputs[row, : len(ids)] = torch.tensor(ids)
                labels[row, context : len(ids)] = torch.tensor(ids[context:])
            yield inputs, labels


def optimizers(model: Qwen3ForCausalLM, recipe: DemoRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices in the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in inside]
    return [
        Muon(matrices, lr=recipe.matrix_lr),
        torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(progress: float) -> float:
    """Return the share of the peak learning rate: warm-up, plateau, linear fall to zero.

    ``progress`` is from 0 to 1.
    """
    return max(0.0, min(1.0, progress / WARMUP_SHARE, (1.0 - progress) / DECAY_SHARE))


def train(recipe: DemoRecipe, name: str, models: Path, start: Path | None = None) -> None:
    """Train a model by its recipe and save it in ``models``.

    The draft gets the tokenizer of the target in ``models``, so the target is trained first.

    Args:
        start: the folder of a model to go on from.
    """
    folder = models / f"demo-{name}"
    known = start or (models / TARGET if name == "draft" else None)
    tokenizer = AutoTokenizer.from_pretrained(known) if known else train_tokenizer()
    if start:
        model = Qwen3ForCausalLM.from_pretrained(start, dtype=torch.float32)
    else:
        model = build(recipe, tokenizer)
    model.train()
    print(f"{name}: {model.num_parameters():,} parameters, {recipe.tokens:,} tokens", flush=True)
    optims = optimizers(model, recipe)
    groups = [group for optim in optims for group in optim.param_groups]
    peaks = [group["lr"] for group in groups]
    started = time.monotonic()
    seen = 0  # tokens
    average = 0.0  # loss, fading
    for step, (inputs, labels) in enumerate(batches(recipe, tokenizer), 1):
        progress = seen / recipe.tokens
        if progress >= 1.0:
            break
        for peak, group in zip(peaks, groups, strict=True):
            group["lr"] = peak * max(learning_rate(progress), 1e-3)
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        seen += inputs.numel()
        average = ewma(None if step == 1 else average, loss.item(), LOSS_FADE)
        if step % 25 == 0:
            rate = seen / (time.monotonic() - started)
            losses = f"loss {average:.4f}  {rate:,.0f} tokens/s"
            print(f"{progress:6.1%}  step {step}  {losses}", flush=True)
        if step % 200 == 0:
            save(model, tokenizer, folder)
    save(model, tokenizer, folder)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights and tokenizer, for any Hugging Face loader."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--tokens", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from")
    args = parser.parse_args()
    given = {"tokens": args.tokens, "seed": args.seed}
    changes = {key: value for key, value in given.items() if value is not None}
    train(replace(RECIPES[args.model], **changes), args.model, args.out, args.start)


if __name__ == "__main__":
    main()
