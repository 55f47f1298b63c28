"""Assemble the output of ``generate`` from the texts of all rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.generation import GenerateDecoderOnlyOutput

from swarm.decoding.sampling import restrict
from swarm.hf.arguments import GenerateCall
from swarm.outputs import Generation, Piece
from swarm.request import Request


@dataclass
class SwarmGenerateOutput(GenerateDecoderOnlyOutput):  # type: ignore[misc, unused-ignore]
    """transformers' output, with the texts, routes and statistics of a swarm.

    Its hidden states are those of the last layer: for every step a tuple of one tensor ``[rows, 1,
    hidden]``.

    Attributes:
        generations: of every row, its text, route and statistics; None for rows that a stopping
            criterion ended.
    """

    generations: tuple[Generation | None, ...] | None = None


@dataclass
class GeneratedRow:
    """The text that was generated for one row."""

    pieces: list[Piece] = field(default_factory=list)
    generation: Generation | None = None

    @property
    def tokens(self) -> list[int]:
        return [piece.token_id for piece in self.pieces]


def assemble(call: GenerateCall, rows: Sequence[GeneratedRow]) -> Tensor | SwarmGenerateOutput:
    """Return the sequences ``[rows, tokens]``, or with ``return_dict`` all requested outputs."""
    steps = max(len(row.pieces) for row in rows)
    fill = 0 if call.pad_token_id is None else call.pad_token_id
    new_tokens = [row.tokens + [fill] * (steps - len(row.pieces)) for row in rows]
    sequences = torch.cat([call.inputs, call.inputs.new_tensor(new_tokens)], dim=1)
    if not call.return_dict:
        return sequences
    outputs: dict[str, Any] = {}
    if call.scores:
        outputs["scores"] = _by_step([scores(call, i, row) for i, row in enumerate(rows)], steps)
    if call.logits:
        outputs["logits"] = _by_step([_stacked(row, _logits) for row in rows], steps)
    if call.hidden_states:
        outputs["hidden_states"] = _hidden_states(rows, steps)
    generations = tuple(row.generation for row in rows)
    return SwarmGenerateOutput(sequences=sequences, generations=generations, **outputs)


def scores(call: GenerateCall, number: int, row: GeneratedRow) -> Tensor:
    """Return one row's processed logits ``[tokens, vocabulary]``, as transformers computes them.

    Penalties and biases are applied, and when sampling, temperature, top k, top p and min p.
    """
    request = Request.of(call.options)
    logits = _stacked(row, _logits)
    shaped = request.shaping.apply(logits, call.prompts[number], row.tokens[:-1])
    sampling = request.sampling
    if not sampling.temperature:
        return shaped
    kept = restrict(shaped / sampling.temperature, sampling.top_k, sampling.top_p)
    best = kept.amax(dim=-1, keepdim=True)
    return kept.masked_fill(kept - best < sampling.least, -torch.inf)


def _logits(piece: Piece) -> Tensor | None:
    return piece.logits


def _hidden_states(rows: Sequence[GeneratedRow], steps: int) -> tuple[tuple[Tensor], ...]:
    by_step = _by_step([_stacked(row, lambda piece: piece.hidden_state) for row in rows], steps)
    return tuple((step[:, None],) for step in by_step)


def _stacked(row: GeneratedRow, tensor_of: Callable[[Piece], Tensor | None]) -> Tensor:
    return torch.stack([tensor for piece in row.pieces if (tensor := tensor_of(piece)) is not None])


def _by_step(rows: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
    """Turn rows ``[tokens, n]`` of any lengths into ``[rows, n]`` per step, filled with zeros."""
    padded = [torch.nn.functional.pad(row, (0, 0, 0, steps - len(row))) for row in rows]
    return torch.stack(padded, dim=1).unbind()


def placed(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Place rows ``[tokens, n]`` into one ``[rows, positions, n]``, zeros at padding.

    Args:
        mask: ``[rows, positions]``, true where a row's last tokens belong.
    """
    padded = rows[0].new_zeros(*mask.shape, rows[0].shape[1])
    for target, row, text in zip(padded, rows, mask, strict=True):
        target[text] = row[len(row) - int(text.sum()) :]
    return padded.to(mask.device)
