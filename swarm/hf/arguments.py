"""What a call of ``generate`` in the manner of transformers asks for: read, checked, and said in
our own options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, MaxTimeCriteria

from swarm.hf.settings import (
    UnsupportedArgument,
    new_tokens,
    refuse,
    resolve,
    sampling,
    stop_strings,
    token_ids,
)
from swarm.request import Options

# Options of ours that have no name in transformers.
OWN = frozenset(
    {
        "window",
        "depth",
        "branches",
        "verify",
        "lookup",
        "logit_bias",
        "patience_s",
        "standby",
        "keep",
    }
)
OUTPUTS = ("scores", "logits", "hidden_states")  # what may be told of every token
# from which one is drawn: below the largest, so that every row can have a seed of its own
SEEDS = 1 << 62


@dataclass(frozen=True)
class Call:
    """One call of ``generate``.

    Attributes:
        inputs: ``[rows, tokens]``, padding included; every prompt as often as sequences are wanted
            of it.
        prompts: the same without padding.
        options: of all rows, the seed left out.
        seed: of the first row, the next ones take the numbers behind it; None if nothing is
            sampled.
        criteria: asked after every token whether a row ends.
    """

    inputs: Tensor
    prompts: tuple[tuple[int, ...], ...]
    options: Options
    seed: int | None
    pad_token_id: int | None
    criteria: tuple[Any, ...]
    return_dict: bool
    scores: bool
    logits: bool
    hidden_states: bool

    def options_of(self, row: int) -> Options:
        """The options of one row."""
        options = self.options.copy()
        if self.seed is not None:
            options["seed"] = self.seed + row
        return options


def read_call(
    inputs: Tensor | None,
    attention_mask: Tensor | None,
    config: GenerationConfig | None,
    defaults: GenerationConfig,
    max_positions: int | None,
    criteria: Sequence[Any],
    more: Mapping[str, Any],
) -> Call:
    """Read the arguments of ``generate``.

    Args:
        config: the user's, if there is one; ``more`` goes before it, and both before the model's
            ``defaults``.
        more: all other keyword arguments. A ``tokenizer`` is not needed: stop strings are sought in
            what the model's own one makes of the tokens.

    Raises:
        UnsupportedArgument: for what cannot be honoured.
    """
    theirs = {
        name: value
        for name, value in more.items()
        if name not in OWN and name not in ("seed", "tokenizer")
    }
    config = resolve(config, defaults, theirs)
    refuse(config)
    eos, stops = token_ids(config.eos_token_id), stop_strings(config)
    inputs = first_token(config.bos_token_id) if inputs is None else inputs
    mask = mask_of(
        inputs, attention_mask, None if config.pad_token_id in eos else config.pad_token_id
    )
    if not bool(mask[:, -1].all()):
        raise UnsupportedArgument(
            "attention_mask", attention_mask, "a prompt ends with padding: pad on the left side"
        )
    each = config.num_return_sequences or 1
    if config.max_time is not None:
        criteria = [*criteria, MaxTimeCriteria(config.max_time)]
    pad = eos[0] if config.pad_token_id is None and eos else config.pad_token_id
    if pad is None and len(inputs) * each > 1 and (criteria or stops):
        raise UnsupportedArgument(
            "pad_token_id", None, "texts may end at different places: name a token to fill with"
        )
    wants = {
        flag: bool(config.return_dict_in_generate and getattr(config, f"output_{flag}"))
        for flag in OUTPUTS
    }
    options: dict[str, Any] = {
        **{name: value for name, value in more.items() if name in OWN},
        **sampling(config),
        "max_new_tokens": new_tokens(config, inputs.shape[1], max_positions),
        "repetition_penalty": 1.0
        if config.repetition_penalty is None
        else config.repetition_penalty,
        "stop_token_ids": eos,
        "stop": stops,
        "logits": wants["logits"] or wants["scores"],
        "hidden_states": wants["hidden_states"],
    }
    return Call(
        inputs=inputs.repeat_interleave(each, dim=0),
        prompts=tuple(prompt for prompt in unpadded(inputs, mask) for _ in range(each)),
        options=cast(Options, options),
        seed=seed_of(more.get("seed")) if config.do_sample else None,
        pad_token_id=pad,
        criteria=tuple(criteria),
        return_dict=bool(config.return_dict_in_generate),
        **wants,
    )


def seed_of(seed: int | None) -> int:
    """The seed that is given, or one that torch's own generator draws, so that
    ``torch.manual_seed`` is heeded."""
    return int(torch.randint(SEEDS, ())) if seed is None else seed


def first_token(bos_token_id: int | None) -> Tensor:
    """The inputs of who gives none."""
    if bos_token_id is None:
        raise UnsupportedArgument(
            "input_ids", None, "the model has no token that begins a text: give input_ids"
        )
    return torch.tensor([[bos_token_id]])


def mask_of(inputs: Tensor, mask: Tensor | None, padding: int | None = None) -> Tensor:
    """Which of the ``inputs`` ``[rows, tokens]`` are text, as booleans; without a ``mask``, all
    that is no ``padding``.

    Raises:
        UnsupportedArgument: if these are no token ids, or the mask is of another shape.
    """
    if (
        not isinstance(inputs, Tensor)
        or inputs.ndim != 2
        or inputs.is_floating_point()
        or not inputs.numel()
    ):
        raise UnsupportedArgument(
            "input_ids", inputs, "give a tensor of token ids, [batch, tokens]"
        )
    if mask is None:
        return torch.ones_like(inputs, dtype=torch.bool) if padding is None else inputs != padding
    if mask.shape != inputs.shape:
        raise UnsupportedArgument(
            "attention_mask", mask, f"its shape is not that of input_ids, {tuple(inputs.shape)}"
        )
    return mask != 0


def unpadded(inputs: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    """The text of every row."""
    return [tuple(row[text].tolist()) for row, text in zip(inputs, mask, strict=True)]
