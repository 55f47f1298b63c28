"""What ``generate`` gives back, put together from the texts of all rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.generation import GenerateDecoderOnlyOutput

from swarm.decoding.sampling import restrict
from swarm.hf.arguments import Call
from swarm.outputs import Generation, Piece
from swarm.request import Request


@dataclass
class SwarmGenerateOutput(GenerateDecoderOnlyOutput):  # type: ignore[misc, unused-ignore]
    """transformers' output, and what a swarm can say besides.

    Attributes:
        hidden_states: of every step a tuple of one tensor ``[rows, 1, hidden]``: that of the last
            layer.
        generations: of every row, its text, route and statistics; None for rows that a stopping
            criterion ended.
    """

    generations: tuple[Generation | None, ...] | None = None


@dataclass
class Row:
    """What was written behind one prompt."""

    pieces: list[Piece] = field(default_factory=list)
    generation: Generation | None = None

    @property
    def tokens(self) -> list[int]:
        return [piece.token_id for piece in self.pieces]


def assemble(call: Call, rows: Sequence[Row]) -> Tensor | SwarmGenerateOutput:
    """Sequences ``[rows, tokens]``, and if a dictionary is wanted, all that was asked for with
    them."""
    steps = max(len(row.pieces) for row in rows)
    fill = 0 if call.pad_token_id is None else call.pad_token_id
    written = [row.tokens + [fill] * (steps - len(row.pieces)) for row in rows]
    sequences = torch.cat([call.inputs, call.inputs.new_tensor(written)], dim=1)
    if not call.return_dict:
        return sequences
    return SwarmGenerateOutput(
        sequences=sequences,
        scores=_by_step([scores(call, i, row) for i, row in enumerate(rows)], steps)
        if call.scores
        else None,
        logits=_by_step([_stacked(row, lambda piece: piece.logits) for row in rows], steps)
        if call.logits
        else None,
        hidden_states=_hidden_states(rows, steps) if call.hidden_states else None,
        generations=tuple(row.generation for row in rows),
    )


def scores(call: Call, place: int, row: Row) -> Tensor:
    """Processed logits ``[tokens, vocabulary]``: penalties and biases applied, and when sampling,
    temperature, top k and top p, as transformers does it."""
    request = Request.of(call.options)
    logits = _stacked(row, lambda piece: piece.logits)
    shaped = request.shaping.apply(logits, call.prompts[place], row.tokens[:-1])
    sampling = request.sampling
    if not sampling.temperature:
        return shaped
    return restrict(shaped / sampling.temperature, sampling.top_k, sampling.top_p)


def _hidden_states(rows: Sequence[Row], steps: int) -> tuple[tuple[Tensor], ...]:
    by_step = _by_step([_stacked(row, lambda piece: piece.hidden_state) for row in rows], steps)
    return tuple((step[:, None],) for step in by_step)


def _stacked(row: Row, tensor_of: Callable[[Piece], Tensor | None]) -> Tensor:
    return torch.stack([tensor for piece in row.pieces if (tensor := tensor_of(piece)) is not None])


def _by_step(rows: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
    """Of rows ``[tokens, n]`` of several lengths, for each step the ``[rows, n]``; zeros behind the
    end of a row."""
    padded = [torch.nn.functional.pad(row, (0, 0, 0, steps - len(row))) for row in rows]
    return torch.stack(padded, dim=1).unbind()


def placed(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Rows ``[tokens, n]`` as one ``[rows, places, n]``: their last tokens where ``mask`` is true,
    zeros elsewhere."""
    places = rows[0].new_zeros(*mask.shape, rows[0].shape[1])
    for place, row, text in zip(places, rows, mask, strict=True):
        place[text] = row[len(row) - int(text.sum()) :]
    return places.to(mask.device)
