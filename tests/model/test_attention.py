"""Attention of one session, beside the formula."""

import pytest
import torch

from swarm.model.attention import attend
from swarm.model.masks import AttentionView, MaskRule

HEADS, KEY_DIM, VALUE_DIM = 2, 4, 6


def plain_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    start: int,
    window: int,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention as the papers write it: head by head, row by row."""
    heads, count = query.shape[1:3]
    out = torch.empty(1, count, heads, values.shape[-1])
    for head in range(heads):
        group = head * keys.shape[0] // heads
        for row in range(count):
            seen = slice(max(0, start + row + 1 - window), start + row + 1)
            scores = keys[group, seen] @ query[0, head, row] * 0.3
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat([scores, sinks[head : head + 1]])
            shares = torch.softmax(scores, dim=0)[: seen.stop - seen.start]
            out[0, row, head] = shares @ values[group, seen]
    return out


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [3, 1000])
@pytest.mark.parametrize("count", [1, 4])
def test_attention_of_one_session(
    softcap: float | None, sinks: bool, window: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    start, heads = 5, 6
    query = torch.randn(1, heads, count, KEY_DIM, generator=generator)
    keys = torch.randn(HEADS, start + count, KEY_DIM, generator=generator)
    values = torch.randn(HEADS, start + count, VALUE_DIM, generator=generator)
    sink = torch.randn(heads, generator=generator) if sinks else None
    view = AttentionView(start, count, start, None)
    rule = MaskRule(lambda batch, head, q, k: (k <= q) & (k > q - window), [view])
    mask = rule.draw(view, heads // HEADS, keys)
    got = attend(query, keys, values, mask, 0.3, softcap, sink)
    torch.testing.assert_close(
        got, plain_attention(query, keys, values, start, window, softcap, sink)
    )
