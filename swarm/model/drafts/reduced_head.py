"""The head of a draft model with the rows alone that are worth their time.

The head of a small model with a large vocabulary is most of its weights: 168 of 268 million in
Gemma 3 270M. Every drafted token reads them all.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm.decoding.drafting.frequency import most_frequent
from swarm.decoding.drafting.reduced import used_rows
from swarm.decoding.drafting.vocabulary import Vocabulary

WORTH_SHARE = 0.75  # a head that keeps more of its rows stays as it is
CHECK_TOKENS = 6
TOLERANCE = 1e-3  # relative error of the rows that stay; kernels may differ by the number of rows
ROUGH_TOLERANCE = 0.05  # in 16 bits


def rows_to_keep(
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    head_rows: int,
    count: int | None = None,
    always: Iterable[int] = (),
) -> Tensor | None:
    """Return the draft's tokens whose rows stay, LongTensor ``[n]``; None if the head stays whole.

    Tokens that the target does not have are never proposed, so their rows cost time for nothing.

    Args:
        tokenizer: of the draft.
        head_rows: of the draft's head.
        count: keep only so many of the others, the most frequent ones; None keeps all of them.
        always: tokens of the target that are kept besides, such as those that end a text.
    """
    rows = used_rows(vocabulary, head_rows)
    if count is not None and count < len(rows):
        kept = [own for token in always for own in vocabulary.encode([token])]
        rows = torch.tensor(most_frequent(tokenizer, rows.tolist(), count, kept))
    return rows if 0 < len(rows) <= WORTH_SHARE * head_rows else None


@torch.inference_mode()
def keep_rows(model: PreTrainedModel, rows: Tensor) -> bool:
    """Let a model compute the logits of these tokens alone, in this order.

    The embedding stays whole, also where the head shared its weights.

    Returns:
        Whether it was done. A model whose head is no plain linear layer, or that does more with
        logits than with each by itself, stays as it is.
    """
    whole = model.get_output_embeddings()
    if type(whole) is not nn.Linear or not whole.weight.is_floating_point():
        return False
    generator = torch.Generator().manual_seed(0)
    known = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(known, (1, CHECK_TOKENS), generator=generator).to(model.device)
    rows = rows.to(model.device)
    expected = model(input_ids=tokens, use_cache=False).logits[..., rows]
    model.set_output_embeddings(_reduced(whole, rows))
    try:
        if _same(model(input_ids=tokens, use_cache=False).logits, expected):
            return True
    except (IndexError, RuntimeError, TypeError, ValueError):
        pass
    model.set_output_embeddings(whole)
    return False


def _reduced(whole: nn.Linear, rows: Tensor) -> nn.Linear:
    reduced = nn.Linear(whole.in_features, len(rows), bias=False, device="meta")
    reduced.weight = nn.Parameter(whole.weight[rows], requires_grad=False)
    if whole.bias is not None:
        reduced.bias = nn.Parameter(whole.bias[rows], requires_grad=False)
    return reduced


def _same(logits: Tensor, expected: Tensor) -> bool:
    if logits.shape != expected.shape:
        return False
    tolerance = TOLERANCE if logits.dtype == torch.float32 else ROUGH_TOLERANCE
    error = (logits.float() - expected.float()).norm() / expected.float().norm()
    return bool(error <= tolerance)
