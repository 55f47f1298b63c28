"""A checkpoint reads only what is needed, and proves by its fingerprint which bytes it holds."""

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, dynamic_module_utils

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES, LAYERS, VOCAB
from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model import hashes, source
from swarm.model.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ARCHITECTURES["llama"].save(tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_facts(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    assert checkpoint.name == "tiny-llama"
    assert (checkpoint.num_layers, checkpoint.hidden_size, checkpoint.vocab_size) == (
        LAYERS,
        32,
        VOCAB,
    )
    assert checkpoint.max_positions == 256
    assert checkpoint.eos_token_ids == {2}
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_a_text_ends_by_whatever_the_makers_have_named(folder: Path) -> None:
    """The end is named in four places, and rarely in all of them."""
    edit(folder / "generation_config.json", eos_token_id=[5, 1 << 20])
    # an id beyond the vocabulary is never written
    assert Checkpoint.open(str(folder)).eos_token_ids == {2, 5}
    tokenizer = tokenizer_of(WORDS)
    tokenizer.add_special_tokens({"eos_token": WORDS[7], "additional_special_tokens": [WORDS[8]]})
    tokenizer.save_pretrained(folder)
    assert Checkpoint.open(str(folder)).eos_token_ids == {2, 5, 7}
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} w8 {% endfor %}"
    tokenizer.save_pretrained(folder)
    assert Checkpoint.open(str(folder)).eos_token_ids == {2, 5, 7, 8}
    (folder / "generation_config.json").unlink()
    assert Checkpoint.open(str(folder)).eos_token_ids == {2, 7, 8}
    edit(folder / "config.json", eos_token_id=None)
    assert Checkpoint.open(str(folder)).eos_token_ids == {7, 8}


@pytest.mark.parametrize("said", ["x", 1.5, [2, None], {"a": 1}, [[2]], True])
def test_an_end_that_is_no_token_names_its_file(folder: Path, said: Any) -> None:
    edit(folder / "generation_config.json", eos_token_id=said)
    with pytest.raises(DamagedModel, match=r"generation_config\.json says that eos_token_id"):
        _ = Checkpoint.open(str(folder)).eos_token_ids


def test_tensors_are_read_by_name(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    everything = {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert checkpoint.tensor_names() == sorted(everything)
    names = ["model.norm.weight", "model.layers.3.mlp.up_proj.weight"]
    loaded = checkpoint.load(names)
    assert list(loaded) == names
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, everything[name])
    with pytest.raises(KeyError):
        checkpoint.load(["model.layers.9.mlp.up_proj.weight"])


def test_files_that_are_not_needed_are_not_opened(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for file in set(index.values()) - {index["model.norm.weight"]}:
        (folder / file).unlink()
    checkpoint.load(["model.norm.weight"])


def test_same_bytes_same_model(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "other-name"
    shutil.copytree(folder, copy)
    edit(copy / "config.json", transformers_version="0.0.0", _name_or_path="somewhere")
    fingerprint = Checkpoint.open(str(folder)).fingerprint
    assert Checkpoint.open(str(copy)).fingerprint == fingerprint
    assert len(fingerprint) == 32
    int(fingerprint, 16)


def test_other_weights_or_settings_are_another_model(folder: Path) -> None:
    before = Checkpoint.open(str(folder)).fingerprint
    file = sorted(folder.glob("*.safetensors"))[0]
    content = load_file(file)
    first = next(iter(content))
    content[first] = content[first] + 1e-3
    save_file(content, file, metadata={"format": "pt"})
    changed = Checkpoint.open(str(folder)).fingerprint
    assert changed != before
    edit(folder / "config.json", rms_norm_eps=0.5)
    assert Checkpoint.open(str(folder)).fingerprint not in (before, changed)


def test_hashes_are_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = Checkpoint.open(str(folder)).fingerprint
    monkeypatch.setattr(hashes, "_remember_hash", lambda *_: pytest.fail("hashed again"))
    assert Checkpoint.open(str(folder)).fingerprint == fingerprint


def test_a_cache_that_cannot_be_used_costs_nothing_but_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = Checkpoint.open(str(folder)).fingerprint
    (tmp_path / "cache" / "sha256.json").write_text("{broken")
    assert Checkpoint.open(str(folder)).fingerprint == fingerprint
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "file"))
    assert Checkpoint.open(str(folder)).fingerprint == fingerprint


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for name in [str(tmp_path / "nothing"), "./nothing", str(tmp_path)]:
        with pytest.raises(ModelNotFound) as caught:
            Checkpoint.open(name)
        assert caught.value.model == name
        assert name in str(caught.value)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(source.huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(ModelNotFound, match="no route to host"):
        Checkpoint.open("someone/some-model")


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(UnsupportedModel, match="no safetensors"):
        Checkpoint.open(str(folder)).tensor_names()


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_cannot_point_outside_its_folder(folder: Path, file: str) -> None:
    edit(folder / "model.safetensors.index.json", weight_map={"model.norm.weight": file})
    with pytest.raises(UnsupportedModel, match="no safetensors file beside it"):
        Checkpoint.open(str(folder)).tensor_names()


def test_an_unknown_architecture(folder: Path) -> None:
    edit(folder / "config.json", model_type="from_the_future")
    with pytest.raises(UnsupportedModel, match="tiny-llama"):
        Checkpoint.open(str(folder))


def test_a_single_file_without_an_index(tmp_path: Path) -> None:
    model = ARCHITECTURES["qwen3"].save(tmp_path / "sharded")
    model.save_pretrained(tmp_path / "single")
    checkpoint = Checkpoint.open(str(tmp_path / "single"))
    assert checkpoint.tensor_names() == Checkpoint.open(str(tmp_path / "sharded")).tensor_names()
    assert len(checkpoint.fingerprint) == 32


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.threat("pickled-weights")
@pytest.mark.parametrize("defended", [True, False])
def test_pickled_weights_are_not_opened(
    defended: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "it-ran"
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    torch.save({"model.norm.weight": Payload(trace)}, folder / "pytorch_model.bin")
    if not defended:  # a reader as others have one
        torch.load(folder / "pytorch_model.bin", weights_only=False)
    with pytest.raises(UnsupportedModel, match="safetensors"):
        Checkpoint.open(str(folder)).tensor_names()
    assert trace.exists() != defended


@pytest.mark.threat("pickled-weights")
def test_an_index_cannot_name_pickled_weights(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    torch.save({"model.norm.weight": Payload(trace)}, folder / "pytorch_model.bin")
    index = folder / "model.safetensors.index.json"
    edit(index, weight_map={"model.norm.weight": "pytorch_model.bin"})
    with pytest.raises(UnsupportedModel, match="no safetensors file"):
        Checkpoint.open(str(folder)).load(["model.norm.weight"])
    assert not trace.exists()


@pytest.mark.threat("remote-code")
@pytest.mark.parametrize("defended", [True, False])
def test_code_that_comes_with_a_model_is_not_run(
    defended: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "it-ran"
    (folder / "configuration_evil.py").write_text(
        "import os\nfrom transformers import LlamaConfig\n"
        f"os.mkdir({str(trace)!r})\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
    )
    edit(
        folder / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "configuration_evil.EvilConfig"},
    )
    if not defended:
        monkeypatch.setattr("swarm.model.checkpoint.check_file", lambda *_: None)
        monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        trusting = functools.partial(AutoConfig.from_pretrained, trust_remote_code=True)
        monkeypatch.setattr(
            source.AutoConfig, "from_pretrained", lambda where, **_: trusting(where)
        )
        Checkpoint.open(str(folder))
    else:
        with pytest.raises(UnsupportedModel):
            Checkpoint.open(str(folder))
    assert trace.exists() != defended
