"""What a GGUF file says of its model is understood wholly, or the file is refused."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from helpers.gguf_files import F32, Content, Tensor, convert, pack
from helpers.models import ARCHITECTURES
from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("llama"))


def opened(content: Content, folder: Path) -> Checkpoint:
    return Checkpoint.open(str(content.write(folder / "m.gguf")))


def refusal(content: Content, folder: Path) -> str:
    """Return why a file is refused, by a look at it as by opening it."""
    said = []
    for refuse in (look, Checkpoint.open):
        with pytest.raises((DamagedModel, UnsupportedModel)) as caught:
            refuse(str(content.write(folder / "m.gguf")))
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def test_sizes_and_tokens_are_those_of_the_model(llama: PreTrainedModel, tmp_path: Path) -> None:
    config = opened(convert(llama, F32)[0], tmp_path).config
    for name in (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
        *("rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
    ):
        assert getattr(config, name) == getattr(llama.config, name), name
    assert config.rms_norm_eps == pytest.approx(llama.config.rms_norm_eps)


def test_several_tokens_may_end_a_text(llama: PreTrainedModel, tmp_path: Path) -> None:
    content, _ = convert(llama, F32, {"tokenizer.ggml.eot_token_id": 7})
    assert opened(content, tmp_path).eos_token_ids == {2, 7}


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 64},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        ({"type": "none"}, {"rope_type": "default"}),
    ],
)
def test_stretched_positions_are_read(
    scaling: dict[str, Any], expected: dict[str, Any], llama: PreTrainedModel, tmp_path: Path
) -> None:
    more = {f"llama.rope.scaling.{key}": value for key, value in scaling.items()}
    config = opened(convert(llama, F32, more)[0], tmp_path).config
    assert config.rope_parameters.items() >= expected.items()


def llama3_factors(config: Any, factor: float) -> np.ndarray:
    """Return the factors that llama.cpp's converter writes for Llama 3's rule."""
    angles = 1 / config.rope_parameters["rope_theta"] ** (np.arange(0, 8, 2) / config.head_dim)
    factors = []
    for angle in angles:
        wavelength = 2 * np.pi / angle
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def test_llama_3s_positions_are_known_by_their_factors(
    llama: PreTrainedModel, tmp_path: Path
) -> None:
    content, _ = convert(llama, F32, {"llama.rope.freq_base": 500000.0})
    factors = llama3_factors(_with_theta(llama, 500000.0), 8.0)
    content.tensors["rope_freqs.weight"], _ = pack(factors, F32)
    positions = opened(content, tmp_path).config.rope_parameters
    assert (positions["rope_type"], positions["factor"]) == ("llama3", 8.0)
    content.tensors["rope_freqs.weight"], _ = pack(factors * np.float32(1.1), F32)
    assert "factors of its own" in refusal(content, tmp_path)


def _with_theta(llama: PreTrainedModel, theta: float) -> Any:
    config = llama.config.__class__(**llama.config.to_dict())
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    return config


def without(key: str) -> Callable[[Content], None]:
    return lambda content: content.metadata.pop(key)


def with_key(key: str, value: Any) -> Callable[[Content], None]:
    return lambda content: content.metadata.update({key: value})


def with_tensor(name: str, shape: tuple[int, ...]) -> Callable[[Content], None]:
    values = torch.zeros(shape).numpy()
    return lambda content: content.tensors.update({name: pack(values, F32)[0]})


def without_tensor(name: str) -> Callable[[Content], None]:
    return lambda content: content.tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_key("general.architecture", "wonder"), "architecture 'wonder'.*gemma2.*qwen3"),
        (with_key("llama.attention.brand_new", 1.0), "'llama.attention.brand_new'"),
        (without("llama.block_count"), "says no llama.block_count"),
        (with_key("llama.block_count", "x\ny"), r"block_count is 'x\\ny', which is not a pos"),
        (with_key("llama.attention.head_count", -3.5), "head_count is -3.5"),
        (with_key("llama.attention.head_count_kv", [2, 1, 2, 2]), "head_count_kv is"),
        (with_key("llama.attention.value_length", 4), "not as wide as its keys"),
        (with_key("llama.rope.dimension_count", 4), "rotates 4 of 8 values"),
        (with_key("llama.rope.scaling.type", "longrope"), "stretched by 'longrope'"),
        (with_key("tokenizer.ggml.eos_token_id", 97), "eos_token_id is 97"),
        (with_key("llama.rope.freq_base", 0.0), "freq_base is 0.0, which is not a positive number"),
        (with_key("llama.rope.freq_base", ["x"]), "freq_base is an array of texts, which is not"),
        (with_tensor("rope_freqs.weight", (4,)), "rope_freqs.weight that are not positive"),
        (with_tensor("rope_freqs.weight", (5,)), "rope_freqs.weight that is no list of 4 numbers"),
        (with_tensor("blk.0.mystery.weight", (2, 2)), "'blk.0.mystery.weight', which no llama"),
        (with_tensor("blk.0.attn_q.scale", (1,)), "'blk.0.attn_q.scale'"),
        (without_tensor("token_embd.weight"), "holds no matrix token_embd.weight"),
    ],
)
def test_what_is_not_understood_is_refused(
    change: Callable[[Content], Any], words: str, llama: PreTrainedModel, tmp_path: Path
) -> None:
    content, _ = convert(llama, F32)
    change(content)
    assert re.search(words, refusal(content, tmp_path))


def test_rows_that_are_no_whole_heads_are_refused(llama: PreTrainedModel, tmp_path: Path) -> None:
    content, _ = convert(llama, F32)
    content.tensors["blk.0.attn_k.weight"] = Tensor(F32, (5, 32), bytes(5 * 32 * 4))
    checkpoint = opened(content, tmp_path)
    with pytest.raises(UnsupportedModel, match="5 rows for 2 heads"):
        checkpoint.tensor("model.layers.0.self_attn.k_proj.weight")


def test_experts_are_as_many_as_the_metadata_says(tmp_path: Path) -> None:
    """A tensor may claim millions, of one number each."""
    content, _ = convert(ARCHITECTURES["qwen3_moe"].save(tmp_path / "plain"), F32)
    content.tensors["blk.0.ffn_up_exps.weight"] = pack(np.ones((9, 1, 1), np.float32), F32)[0]
    assert "in the shape [9, 1, 1], which is not that of 4 experts" in refusal(content, tmp_path)


ODD_VALUES = (0, 1, 3, 1 << 31, -1.0, 0.0, 1e-30, 3e38, float("nan"), float("inf"), True, "", "x")
ODD_LISTS = (["x"], [1, 2], [1.5], [0] * 97)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), value=st.sampled_from([*ODD_VALUES, *ODD_LISTS, None]))
def test_any_value_is_understood_or_refused(
    data: st.DataObject, value: Any, llama: PreTrainedModel, tmp_path_factory: Any
) -> None:
    content, _ = convert(llama, F32, {"llama.rope.freq_base": 500000.0})
    factors = llama3_factors(_with_theta(llama, 500000.0), 8.0)
    content.tensors["rope_freqs.weight"], _ = pack(factors, F32)
    key = data.draw(st.sampled_from(sorted(content.metadata)))
    content.metadata.pop(key)
    if value is not None:
        content.metadata[key] = value
    file = content.write(tmp_path_factory.getbasetemp() / "odd.gguf")
    with contextlib.suppress(DamagedModel, UnsupportedModel):
        look(str(file))
