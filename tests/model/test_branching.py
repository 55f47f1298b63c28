"""A whole model that reads trees: which models can, and that it is the same model all the while.

(What it says along every path of a tree is tested with the drafter that asks it.)
"""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.models import ARCHITECTURES, UNPACKED, UNSUPPORTED, VOCAB
from helpers.watching import Watching
from swarm.errors import SpanError
from swarm.model.branching import BranchingModel
from swarm.model.work import Work
from swarm.wire.token_tree import Placement, TokenTree

TEXT = [5, 6, 7, 8, 9, 10, 11, 12]


@torch.inference_mode()
def alone(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """What the model says to the last of some tokens."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_the_model_or_it_is_none(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path)
    branching = BranchingModel.of(model)
    assert (branching is None) == (name in UNPACKED | UNSUPPORTED)
    if branching is None:
        return
    reader, stream = branching.reader(), TokenTree()
    assert (reader.known, reader.context) == (VOCAB, 256)
    reader.read(TEXT[:6], stream.admit(0, 0, 1, 6), [5])
    # Behind the text so far: its next tokens, and one that loses in between.
    said = reader.read([TEXT[6], 20, TEXT[7]], stream.admit(0, 6, 7, 3, (1, 2, 2)), [2, 1])
    torch.testing.assert_close(said[0], alone(model, TEXT), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said[1], alone(model, [*TEXT[:6], 20]), rtol=1e-4, atol=1e-4)
    # Once more, with the branch that won alone.
    said = reader.read([30], stream.admit(0, 9, 10, 1, (1,)), [0])
    torch.testing.assert_close(said[0], alone(model, [*TEXT, 30]), rtol=1e-4, atol=1e-4)
    assert reader.cache.length == 9  # type: ignore[attr-defined]


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return ARCHITECTURES["llama_tied"].save(tmp_path)


def test_a_watch_is_told_of_forwards_and_their_layers(model: PreTrainedModel) -> None:
    branching = BranchingModel.of(model)
    assert branching is not None
    watch = branching.watch = Watching()
    branching.reader().read(TEXT, TokenTree().admit(0, 0, 1, len(TEXT)), [0])
    assert watch.told == ["begins", *["layer"] * model.config.num_hidden_layers, "ends"]
    model(input_ids=torch.tensor([TEXT]))  # the model that it was made of stays as it is
    assert watch.told[-1] == "ends"


@pytest.mark.parametrize("name", ["llama_tied", "qwen3", "gemma2", "gpt_oss", "minicpm3"])
def test_keys_and_values_may_be_in_another_dtype(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path)
    branching = BranchingModel.of(model, torch.bfloat16)
    assert branching is not None
    reader, stream = branching.reader(), TokenTree()
    reader.read(TEXT[:6], stream.admit(0, 0, 1, 6), [5])
    said = reader.read([TEXT[6], 20, TEXT[7]], stream.admit(0, 6, 7, 3, (1, 2, 2)), [2, 1])
    assert said.dtype == torch.float32
    cache = reader.cache  # type: ignore[attr-defined]
    assert {rows.dtype for rows in cache._rows.values()} == {torch.bfloat16}
    assert cache.copy().dtype == torch.bfloat16
    expected = torch.stack([alone(model, TEXT), alone(model, [*TEXT[:6], 20])])
    assert (said - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize("name", ["llama_tied", "deepseek_v3"])
def test_texts_read_together_do_not_see_each_other(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path)
    branching = BranchingModel.of(model)
    assert branching is not None
    texts = [TEXT, TEXT[:3], [30, 31, 32, 33]]
    caches = [branching.new_cache() for _ in texts]
    for begin, end in ((0, 2), (2, None)):
        works = [
            Work.behind(cache, torch.tensor(text[begin:end]))
            for cache, text in zip(caches, texts, strict=True)
        ]
        said = branching.read_together(works)
    for row, text in zip(said, texts, strict=True):
        torch.testing.assert_close(row, alone(model, text), rtol=1e-4, atol=1e-4)
    # Two texts that part go on from the same rows.
    parted = caches[1].copy()
    works = [
        Work.behind(cache, torch.tensor([token]))
        for cache, token in ((caches[1], 40), (parted, 41))
    ]
    for row, token in zip(branching.read_together(works), (40, 41), strict=True):
        torch.testing.assert_close(row, alone(model, [*TEXT[:3], token]), rtol=1e-4, atol=1e-4)


def test_the_weights_are_in_memory_once_and_the_model_stays_as_it_is(
    model: PreTrainedModel,
) -> None:
    implementation, before = model.config._attn_implementation, alone(model, TEXT)
    branching = BranchingModel.of(model)
    assert branching is not None
    twin = branching._model
    for mine, theirs in ((model.parameters, twin.parameters), (model.buffers, twin.buffers)):
        assert {tensor.data_ptr() for tensor in theirs()} == {
            tensor.data_ptr() for tensor in mine()
        }
    assert twin.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config._attn_implementation == implementation
    assert torch.equal(alone(model, TEXT), before)


def test_readers_do_not_touch_each_other(model: PreTrainedModel) -> None:
    branching = BranchingModel.of(model)
    assert branching is not None
    line = [Placement(start, (), (start,), start, None) for start in range(4)]
    one, other = branching.reader(), branching.reader()
    for token, placed in zip(TEXT[:4], line, strict=True):
        said = one.read([token], placed, [0])
        other.read([token + 20], placed, [0])
    torch.testing.assert_close(said[0], alone(model, TEXT[:4]), rtol=1e-4, atol=1e-4)


def test_rows_that_are_not_there_are_refused(model: PreTrainedModel) -> None:
    branching = BranchingModel.of(model)
    assert branching is not None
    with pytest.raises(SpanError, match="cannot keep"):
        branching.reader().read([5], Placement(3, (), (3,), 3, None), [0])
