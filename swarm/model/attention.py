"""Attention over a packed row: every session attends over its own keys and values only.

Registered with transformers under the name PACKED, together with a mask function.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from swarm.model.batch_invariance import needs_pair
from swarm.model.cache import PackedCache
from swarm.model.latent import Rows, attend_to_latents, hands_on_latents
from swarm.model.masks import AttentionView, Lines, MaskRule, NotPackable

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


def running_now() -> PackedCache | None:
    """Return the cache of the forward that runs in this thread, if one does."""
    return _running.get(None)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: MaskRule | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    indices: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function: query [1, heads, total, head dim] -> [1, total, heads, value dim].

    transformers prescribes the parameters. `softcap` bounds scores (Gemma 2), `s_aux` [heads] are
    attention sinks (gpt-oss), `indices` [1, total, chosen] name the rows that a token attends to
    (DeepSeek sparse attention).

    Raises:
        NotPackable: if layers change cached keys and get the new ones only, or bias scores by
            position.
    """
    packed = _running.get()
    if kwargs.get("position_bias") is not None:
        raise NotPackable("its layers bias scores by position")
    rule = attention_mask or MaskRule(causal_mask_function, packed.views, key.device)
    chosen: Sequence[torch.Tensor | None] = [None] * len(packed.views)
    if indices is not None:
        chosen = _chosen(indices, packed)

    def within(
        view: AttentionView, query: torch.Tensor, rows: Rows, only: torch.Tensor | None
    ) -> torch.Tensor:
        def one(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            mask = rule.draw(view, query.shape[1] // keys.shape[0], keys, only)
            return attend(query, keys, values, mask, scaling, softcap, s_aux)

        if hands_on_latents(module):
            return attend_to_latents(module, query, rows, one)
        return one(query, *rows)

    outputs = []
    queries = query.split_with_sizes(packed.counts, dim=2)
    sessions = zip(packed.views, queries, packed.sessions(key, value), chosen, strict=True)
    for view, part, rows, only in sessions:
        if view.lines is None or only is not None:
            outputs.append(within(view, part, rows, only))
        else:
            outputs.append(_along_lines(view.lines, part, rows, within))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), None


def _along_lines(
    lines: Lines, query: torch.Tensor, rows: Rows, within: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Attend within one session along each line of its tree -> [1, n, heads, v]."""
    outputs = []
    for line in lines.each:
        own = line.of(rows[0]), line.of(rows[1])
        outputs.append(within(line.view, query.index_select(2, line.tokens), own, None))
    return torch.cat(outputs, dim=1).index_select(1, lines.order)


def _chosen(indices: torch.Tensor, packed: PackedCache) -> list[torch.Tensor]:
    """Return for each session which of its rows each of its tokens has chosen: bool [count, rows].

    Args:
        indices: [1, total, chosen], of rows, all sessions' counted through. Rows that a token may
            not see may be among them.
    """
    total = sum(packed.row_counts)
    chosen = indices.new_zeros((indices.shape[1], total), dtype=torch.bool)
    chosen.scatter_(1, indices[0].long(), True)
    own = zip(
        chosen.split_with_sizes(packed.counts),
        accumulate(packed.row_counts),
        packed.row_counts,
        strict=True,
    )
    return [rows[:, end - count : end] for rows, end, count in own]


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
    if heads == groups and needs_pair(query, keys):
        pair = torch.cat((query, query), dim=2)
        return attend(pair, keys, values, mask, scaling, softcap, sinks)[:, :1]
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


def keep_rule(
    *args: Any,
    mask_function: Callable[..., torch.Tensor] = causal_mask_function,
    device: torch.device | None = None,
    **kwargs: Any,
) -> MaskRule:
    """The mask function, which transformers calls once a forward for every kind of layer.

    Returns the rule of a mask instead of the mask, because each session needs its own mask.

    Raises:
        NotPackable: for masks that depend on more than positions.
    """
    if kwargs.get("attention_mask") is not None or kwargs.get("use_vmap"):
        raise NotPackable("its masks depend on more than positions")
    return MaskRule(mask_function, _running.get().views, device)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, keep_rule)
