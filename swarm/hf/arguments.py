"""Read and check the arguments of ``generate``, and turn them into options of the SDK."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, MaxTimeCriteria

from swarm.errors import UnsupportedArgument
from swarm.hf.settings import new_tokens, refuse, resolve, sampling, stop_strings, token_ids
from swarm.request import Options

# Options of ours that have no name in transformers.
OWN = frozenset(
    {
        *("window", "depth", "branches", "verify", "lookup", "owner", "remember", "learn"),
        *("logit_bias", "patience_s", "standby", "keep"),
    }
)
OUTPUTS = ("scores", "logits", "hidden_states")  # that may be returned for every token
SEEDS = 1 << 62  # to draw from: below the largest seed, so that each row has one of its own


@dataclass(frozen=True)
class GenerateCall:
    """One call of ``generate``.

    Attributes:
        inputs: ``[rows, tokens]``, with padding; one row for each sequence that is returned.
        prompts: the same without padding.
        options: of all rows, without the seed.
        seed: of the first row; each next row has the next number. None without sampling.
        pad_token_id: fills rows that end early.
        criteria: stopping criteria, called after every token of a row.
        return_dict: whether to return a `SwarmGenerateOutput`.
        scores, logits, hidden_states: whether to return these.
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
        """Return the options of one row."""
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
) -> GenerateCall:
    """Read the arguments of ``generate``.

    Args:
        inputs, attention_mask: ``[batch, tokens]``.
        config: the user's, if any. ``more`` overrides it, and both override the model's
            ``defaults``.
        max_positions: of the model, None without a limit.
        more: all other keyword arguments. A ``tokenizer`` is ignored: stop strings are searched in
            the text of the model's own one.

    Raises:
        UnsupportedArgument: for arguments that cannot be honoured.
    """
    config = resolve(config, defaults, _of_config(more))
    refuse(config)
    eos = token_ids(config.eos_token_id)
    stops = stop_strings(config)
    if inputs is None:
        inputs = first_token(config.bos_token_id)
    padding = None if config.pad_token_id in eos else config.pad_token_id
    mask = mask_of(inputs, attention_mask, padding)
    if not bool(mask[:, -1].all()):
        raise UnsupportedArgument(
            "attention_mask", attention_mask, "a prompt ends with padding: pad on the left side"
        )
    if config.max_time is not None:
        criteria = [*criteria, MaxTimeCriteria(config.max_time)]
    copies = config.num_return_sequences or 1
    pad_token_id = eos[0] if config.pad_token_id is None and eos else config.pad_token_id
    if pad_token_id is None and len(inputs) * copies > 1 and (criteria or stops):
        raise UnsupportedArgument(
            "pad_token_id", None, "texts may end at different places: name a token to fill with"
        )
    outputs = _outputs(config)
    return GenerateCall(
        inputs=inputs.repeat_interleave(copies, dim=0),
        prompts=tuple(prompt for prompt in unpadded(inputs, mask) for _ in range(copies)),
        options={
            **_own(more),
            **sampling(config),
            "max_new_tokens": new_tokens(config, inputs.shape[1], max_positions),
            "repetition_penalty": (
                1.0 if config.repetition_penalty is None else config.repetition_penalty
            ),
            "stop_token_ids": eos,
            "stop": stops,
            "logits": outputs["logits"] or outputs["scores"],
            "hidden_states": outputs["hidden_states"],
        },
        seed=seed_of(more.get("seed")) if config.do_sample else None,
        pad_token_id=pad_token_id,
        criteria=tuple(criteria),
        return_dict=bool(config.return_dict_in_generate),
        **outputs,
    )


def _of_config(more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that are fields of a GenerationConfig, known or not."""
    ours = {*OWN, "seed", "tokenizer"}
    return {name: value for name, value in more.items() if name not in ours}


def _own(more: Mapping[str, Any]) -> Options:
    """Return the keyword arguments that are options of ours."""
    return cast(Options, {name: value for name, value in more.items() if name in OWN})


def _outputs(config: GenerationConfig) -> dict[str, bool]:
    """Tell which of `OUTPUTS` to return."""
    return {
        name: bool(config.return_dict_in_generate and getattr(config, f"output_{name}"))
        for name in OUTPUTS
    }


def seed_of(seed: int | None) -> int:
    """Return the given seed, or one of torch's generator, so that ``torch.manual_seed`` counts."""
    return int(torch.randint(SEEDS, ())) if seed is None else seed


def first_token(bos_token_id: int | None) -> Tensor:
    """Return the inputs of a call without any: the token that begins a text.

    Raises:
        UnsupportedArgument: if the model has none.
    """
    if bos_token_id is None:
        raise UnsupportedArgument(
            "input_ids", None, "the model has no token that begins a text: give input_ids"
        )
    return torch.tensor([[bos_token_id]])


def mask_of(inputs: Tensor, mask: Tensor | None, padding: int | None = None) -> Tensor:
    """Return which of the ``inputs`` ``[rows, tokens]`` are text, as booleans of the same shape.

    Without a ``mask``, all tokens but ``padding`` are text.

    Raises:
        UnsupportedArgument: if the inputs are no token ids, or the mask has another shape.
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
    """Return the tokens of every row that are text."""
    return [tuple(row[text].tolist()) for row, text in zip(inputs, mask, strict=True)]
