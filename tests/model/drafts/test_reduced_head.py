"""A draft model's head with some of its rows."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES, VOCAB
from swarm.decoding.drafting.vocabulary import SameVocabulary, Translation
from swarm.model.branching import BranchingModel
from swarm.model.drafts.reduced_head import keep_rows, rows_to_keep

ROWS = torch.tensor([40, 3, 96, 7, 8])
TOKENS = torch.tensor([[5, 6, 7, 96]])


def model_of(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    ARCHITECTURES[name].save(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval()


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return logits.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["llama", "llama_tied", "gemma2", "cohere", "granite", "phi", "qwen3", "gpt_oss"]
)
def test_the_rows_that_stay_give_the_logits_of_the_whole_head(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Also behind a soft cap, a scale or a bias, and where embedding and head were one tensor."""
    model = model_of(name, tmp_path, dtype)
    expected = logits_of(model)[..., ROWS]
    embedding = model.get_input_embeddings().weight.clone()
    assert keep_rows(model, ROWS)
    close = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(logits_of(model), expected, atol=close, rtol=close)
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert model.get_output_embeddings().weight.shape[0] == len(ROWS)
    branching = BranchingModel.of(model)
    assert branching is not None
    assert branching.known == VOCAB


class Odd(nn.Linear):
    """A layer that does something else."""


def test_a_head_that_is_no_plain_linear_layer_stays(tmp_path: Path) -> None:
    model = model_of("llama", tmp_path)
    odd = Odd(model.config.hidden_size, VOCAB)
    model.set_output_embeddings(odd)
    assert not keep_rows(model, ROWS)
    assert model.get_output_embeddings() is odd


def test_a_model_that_compares_logits_with_each_other_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama", tmp_path)
    forward = model.forward

    def normalized(*args: object, **options: object) -> object:
        output = forward(*args, **options)
        output.logits = output.logits.log_softmax(-1)
        return output

    monkeypatch.setattr(model, "forward", normalized)
    expected = logits_of(model)
    assert not keep_rows(model, ROWS)
    assert torch.equal(logits_of(model), expected)


def test_rows_that_the_target_has_no_token_for_go() -> None:
    known, other = WORDS[:40], [f"x{i}" for i in range(60)]
    draft, target = tokenizer_of([*other, *known]), tokenizer_of(WORDS)
    vocabulary = Translation(draft, target, VOCAB)
    rows = rows_to_keep(vocabulary, draft, 110)
    assert rows is not None
    kept = set(draft.convert_ids_to_tokens(rows.tolist()))
    assert kept <= set(known)
    assert len(kept) > 30


def test_of_frequent_ones_alone_those_that_end_a_text_stay() -> None:
    tokenizer = tokenizer_of(WORDS)
    vocabulary = SameVocabulary(VOCAB)
    assert rows_to_keep(vocabulary, tokenizer, VOCAB) is None, "the target has them all"
    assert rows_to_keep(vocabulary, tokenizer, VOCAB, VOCAB - 1) is None, "not worth it"
    rows = rows_to_keep(vocabulary, tokenizer, VOCAB, 20, [VOCAB - 1])
    assert rows is not None
    assert {VOCAB - 1, *tokenizer.all_special_ids} <= set(rows.tolist())
    assert 20 <= len(rows) <= 30
