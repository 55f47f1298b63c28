"""Attention over a packed row: every session attends over its own keys and values only.

Registered with transformers under the name PACKED, together with the mask function of
`swarm.model.masks`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from swarm.model.cache import PackedCache
from swarm.model.masks import MaskRule, NotPackable, keep_rule

PACKED = "swarm_packed"

_running: ContextVar[PackedCache] = ContextVar("running")


@contextmanager
def running(packed: PackedCache) -> Iterator[None]:
    """While open, packed attention in this thread reads from `packed`."""
    token = _running.set(packed)
    try:
        yield
    finally:
        _running.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: MaskRule | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function: query [1, heads, total, head dim] -> [1, total, heads, value dim].

    transformers prescribes the parameters. `softcap` bounds scores (Gemma 2), `s_aux` [heads] are
    attention sinks (gpt-oss).

    Raises:
        NotPackable: if layers share or change cached keys, or bias scores by position.
    """
    packed = _running.get()
    pending = packed.pending
    biased = kwargs.get("position_bias") is not None
    if pending is None or key is not packed.returned or biased:
        why = "its layers share or change keys after they were cached, or bias scores by position"
        raise NotPackable(why)
    packed.pending = None
    rule = MaskRule(causal_mask_function) if attention_mask is None else attention_mask
    if len(pending) == 1:
        keys, values = pending[0]
        mask = rule.draw(0, packed.views[0], query.shape[1] // keys.shape[0], keys)
        return attend(query, keys, values, mask, scaling, softcap, s_aux), None
    outputs = []
    for session, part in enumerate(query.split_with_sizes(packed.counts, dim=2)):
        keys, values = pending[session]
        mask = rule.draw(session, packed.views[session], part.shape[1] // keys.shape[0], keys)
        outputs.append(attend(part, keys, values, mask, scaling, softcap, s_aux))
    return torch.cat(outputs, dim=1), None


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend within one session -> [1, n, heads, v].

    Args:
        query: [1, heads, n, d]; the result has its dtype.
        keys: [kv heads, len, d], in any dtype, which is the one to compute in.
        values: [kv heads, len, v].
        mask: additive, [heads / kv heads * n, len].
        scaling: of the scores; None for 1 / sqrt(d).
        softcap: bounds the scores to (-softcap, softcap) by tanh.
        sinks: [heads].
    """
    if query.dtype != keys.dtype:
        out = attend(query.to(keys.dtype), keys, values, mask, scaling, softcap, sinks)
        return out.to(query.dtype)
    _, heads, count, head_dim = query.shape
    groups = keys.shape[0]
    # Query heads that share keys lie one after another along the rows: no key is ever copied.
    rows = query.reshape(1, groups, heads // groups * count, head_dim)
    if softcap is None and sinks is None:
        out = scaled_dot_product_attention(
            rows, keys.unsqueeze(0), values.unsqueeze(0), attn_mask=mask, scale=scaling
        )
    else:
        out = _attend_by_hand(rows, keys, values, mask, scaling, softcap, sinks)
    if count == 1:
        return out.reshape(1, 1, heads, -1)
    return out.reshape(1, heads, count, -1).transpose(1, 2)


def _attend_by_hand(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    scale = rows.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(rows, keys.transpose(1, 2)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    if sinks is None:
        shares = torch.softmax(scores, dim=-1, dtype=torch.float32)
        return torch.matmul(shares.to(rows.dtype), values)
    # A sink is a score without a value: it takes a share of the attention.
    groups = keys.shape[0]
    sink = sinks.reshape(1, groups, -1, 1, 1).to(scores.dtype)
    sink = sink.expand(1, groups, -1, rows.shape[2] // sink.shape[2], 1).reshape(1, groups, -1, 1)
    shares = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1, dtype=torch.float32)[..., :-1]
    return torch.matmul(shares.to(rows.dtype), values)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, keep_rule)
