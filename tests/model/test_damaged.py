"""Damaged, truncated and impossible checkpoints are one sentence that names the file, never a
library's exception."""

import json
import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES
from swarm.errors import DamagedModel, ExitCode, ModelNotFound, SwarmError, UnsupportedModel
from swarm.model import rehearsal
from swarm.model.checkpoint import Checkpoint
from swarm.model.draft import DraftModel
from swarm.model.edge import QUIET
from swarm.model.folder import look
from swarm.model.head import Head
from swarm.model.span import Span

CASES = 300
SHARD = "model-00001-of-"
LEFT_OUT = r"{}, which .* leaves out of the model"
ODD_VALUES: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    1,
    3,
    7,
    1 << 40,
    1 << 70,
    1.5,
    1e300,
    [],
    [0],
    {},
    {"a": 1},
    True,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "model"
    ARCHITECTURES["llama"].save(folder)
    tokenizer_of(WORDS).save_pretrained(folder)
    return folder


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(model: Path) -> Path:
    return next(model.glob(f"{SHARD}*.safetensors"))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What transformers logs during the test."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    transformers_logging.add_handler(handler)
    yield said
    transformers_logging.remove_handler(handler)


def add(model: Path, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor beside those of a shard, and into the index."""
    path = shard(model)
    save_file({**load_file(path), name: tensor}, path)
    index = model / "model.safetensors.index.json"
    edit(index, weight_map={**json.loads(index.read_text())["weight_map"], name: path.name})


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def use(model: Path) -> None:
    """Everything that a peer and a client do with a checkpoint."""
    checkpoint = Checkpoint.open(str(model))
    checkpoint.tokenizer()
    _ = (
        checkpoint.fingerprint,
        checkpoint.eos_token_ids,
        checkpoint.generation_config,
        checkpoint.max_positions,
    )
    Head.load(checkpoint)
    Span.load(checkpoint, 0, 1)


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def randomize(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([1, 8, 9, 100, 5000])))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def flip(path: Path, rng: random.Random) -> None:
    """Change some bytes, most of them near the beginning."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 20])):
        content[min(int(rng.expovariate(1 / 300)), len(content) - 1)] = rng.randrange(256)
    path.write_bytes(bytes(content))


def change(path: Path, rng: random.Random) -> None:
    """Give some key of a JSON file another value, at any depth; of other files, some bytes."""
    if path.suffix != ".json":
        return flip(path, rng)
    content = json.loads(path.read_text())
    if rng.random() < 0.1:
        content = rng.choice(ODD_VALUES)
    else:
        place = content
        while True:
            key = rng.choice(sorted(place))
            if not (isinstance(place[key], dict) and place[key]) or rng.random() < 0.3:
                break
            place = place[key]
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(ODD_VALUES)
    return path.write_text(json.dumps(content)) and None


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    truncate,
    empty,
    randomize,
    remove,
    flip,
    *[change] * 7,
)


def test_no_damage_is_a_fault_of_ours(sound: Path, tmp_path: Path) -> None:
    """What a damaged folder gives is a sentence with exit code 5, or a model that works."""
    rng = random.Random(14)
    refused: list[SwarmError] = []
    for case in range(CASES):
        model = Path(shutil.copytree(sound, tmp_path / "model"))
        path = rng.choice(
            sorted(each for each in model.iterdir() if each.suffix in (".json", ".safetensors"))
        )
        if rng.random() < 0.4:
            path = model / "config.json"
        damage = rng.choice(DAMAGES)
        damage(path, rng)
        try:
            use(model)
        except SwarmError as error:
            refused.append(error)
        except Exception as error:  # told with what was done
            raise AssertionError(f"case {case}: {damage.__name__} of {path.name}") from error
        shutil.rmtree(model)
    assert CASES / 3 < len(refused) < CASES
    assert {error.exit_code for error in refused} == {ExitCode.LOCAL}
    assert max(len(str(error)) for error in refused) < 1000


@pytest.mark.parametrize("damage", [truncate, empty, randomize, remove])
@pytest.mark.parametrize("which", ["config.json", "model.safetensors.index.json", "shard"])
def test_the_file_is_named_before_anything_heavy_is_done(
    which: str, damage: Any, model: Path
) -> None:
    path = shard(model) if which == "shard" else model / which
    damage(path, random.Random(3))
    if damage is remove and "index" in which:
        look(str(model))  # all shards are there, and no list of them is needed
        return
    with pytest.raises((DamagedModel, ModelNotFound)) as caught:
        look(str(model))
    assert path.name in str(caught.value)
    with pytest.raises(type(caught.value)):
        Checkpoint.open(str(model))


@pytest.mark.parametrize("content", ["{}", "{", "", '{"version": "1.0"}'])
def test_a_tokenizer_that_is_none(content: str, model: Path) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        Checkpoint.open(str(model)).tokenizer()
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        DraftModel.load(str(model), None, None)


def test_a_folder_without_a_tokenizer_may_be_served_and_not_asked(model: Path) -> None:
    for file in model.glob("*token*"):
        file.unlink()
    checkpoint = Checkpoint.open(str(model))
    Span.load(checkpoint, 0, 1)
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        checkpoint.tokenizer()


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 1 << 40, "x", None])
def test_impossible_sizes_name_the_field(field: str, value: int, model: Path) -> None:
    edit(model / "config.json", **{field: value})
    with pytest.raises(SwarmError, match=rf"config\.json.*{field}") as caught:
        Checkpoint.open(str(model))
    assert caught.value.exit_code == ExitCode.LOCAL


# FP8 of DeepSeek and of ModelOpt, GPTQ, compressed-tensors, bitsandbytes, MLX.
@pytest.mark.parametrize(
    "extra",
    [
        *(
            "weight_scale_inv",
            "input_scale",
            "qzeros",
            "weight_packed",
            "weight.absmax",
            "scales",
            "biases",
        ),
        *("weight.quant_state.bitsandbytes__nf4", "g_idx"),
    ],
)
def test_tensors_beside_the_weights_are_refused(extra: str, model: Path) -> None:
    """They say what the weights mean, and whoever leaves them out serves something else."""
    add(model, f"model.layers.0.mlp.up_proj.{extra}", torch.ones(1))
    checkpoint = Checkpoint.open(str(model))
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 2, 3)):
        with pytest.raises(UnsupportedModel, match=f"quantized.*{re.escape(extra)}"):
            load()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int32])
@pytest.mark.parametrize("early", [True, False])
def test_weights_that_are_no_plain_floats_are_refused(
    dtype: torch.dtype, early: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder before anything is read, of a hub model as soon as they are."""
    path = shard(model)
    content = load_file(path)
    name = next(each for each in content if "layers.0" in each and each.endswith(".weight"))
    save_file({**content, name: content[name].to(dtype)}, path)
    checkpoint = Checkpoint.open(str(model))
    if not early:
        monkeypatch.setattr(checkpoint, "stored", dict)
    with pytest.raises(UnsupportedModel, match=f"quantized.*{re.escape(name)} has the dtype"):
        Span.load(checkpoint, 0, 1)


def test_integers_that_are_no_weights_are_left_alone(model: Path) -> None:
    """Old checkpoints hold masks and positions."""
    add(model, "model.layers.0.self_attn.bias", torch.ones(2, dtype=torch.uint8))
    Span.load(Checkpoint.open(str(model)), 0, 1)


@pytest.mark.parametrize(
    "file", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"]
)
def test_quantization_told_in_a_file_of_its_own(file: str, model: Path) -> None:
    (model / file).write_text('{"quantization": {"quant_algo": "FP8"}}')
    for read in (look, Checkpoint.open):
        with pytest.raises(UnsupportedModel, match=f"quantized.*{file}"):
            read(str(model))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        # no weight lies beside these: GPT-OSS, Mamba, nanochat, Gemma 2
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        "model.layers.0.self_attn.sinks",
        "model.layers.0.mixer.A_log",
        "model.layers.0.mixer.dt_bias",
        "model.layers.0.self_attn.bias",
        "model.layers.0.post_feedforward_layernorm.weight",
        "layers.0.self_attn.q_norm.weight",  # as models without a head are saved
        "model.resid_lambdas",
        "model.embed_norm.weight",
        "model.norm.bias",
        "model.embed_tokens.extra",
        "lm_head.bias",
    ],
)
def test_parameters_that_the_configuration_leaves_out_are_refused(name: str, model: Path) -> None:
    """Without them the model would say something else, and the loader would not say a word."""
    add(model, name, torch.ones(32))
    with pytest.raises(UnsupportedModel, match=LEFT_OUT.format(re.escape(name))):
        rehearsal.rehearsed(Checkpoint.open(str(model)))


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "self_attn.sinks"])
def test_what_a_hub_model_in_several_files_holds_is_told_when_it_is_loaded(
    name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to a client and to a peer that serves other layers."""
    add(model, f"model.layers.0.{name}", torch.ones(32))
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, "stored", dict)
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 2, 3)):
        with pytest.raises(UnsupportedModel, match=LEFT_OUT.format(re.escape(name))):
            load()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,)),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", (8, 4)),
        ("model.layers.0.self_attn.masked_bias", ()),
        ("model.layers.0.self_attn.bias", (1, 1, 8, 8)),
        ("model.layers.0.attn.attention.bias", (1, 1, 8, 8)),
        ("model.layers.0.mlp._extra_state", (0,)),
        ("model.layers.4.mlp.up_proj.bias", (4,)),
        ("model.layers.4.enorm.weight", (4,)),
        ("model.mtp.layers.0.mlp.up_proj.bias", (4,)),
        ("model.mtp_emb_norm.0.weight", (4,)),
        ("mtp.fc.weight", (4,)),
        ("model.visual.blocks.0.norm1.weight", (4,)),
        ("vision_tower.encoder.layers.0.layer_norm1.weight", (4,)),
        ("model.rotary_emb.inv_freq", (4,)),
        ("model.position_ids", (4,)),
        ("score.weight", (2, 32)),
    ],
)
def test_tensors_that_publishers_leave_in_their_files_are_harmless(
    name: str, shape: tuple[int, ...], model: Path
) -> None:
    """Tables and masks of old, layers that predict further tokens, other senses, other heads."""
    add(model, name, torch.ones(shape))
    rehearsal.rehearsed(Checkpoint.open(str(model)))


def test_an_adapter_that_is_not_merged_is_told(model: Path) -> None:
    add(model, "model.layers.0.mlp.up_proj.lora_A.weight", torch.ones(1))
    with pytest.raises(UnsupportedModel, match=r"adapter.*lora_A") as caught:
        Head.load(Checkpoint.open(str(model)))
    assert "quantize" not in str(caught.value)


@pytest.mark.parametrize("early", [True, False])
def test_complex_weights_are_told(
    early: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(model)
    content = load_file(path)
    name = next(each for each in content if "layers.0" in each and each.endswith(".weight"))
    save_file({**content, name: content[name].to(torch.complex64)}, path)
    checkpoint = Checkpoint.open(str(model))
    if not early:
        monkeypatch.setattr(checkpoint, "stored", dict)
    with pytest.raises(
        UnsupportedModel, match=f"{re.escape(name)} holds complex numbers"
    ) as caught:
        Span.load(checkpoint, 0, 1)
    assert "quantize" not in str(caught.value)


@pytest.mark.parametrize("early", [True, False])
def test_weights_of_other_shapes_than_the_configuration_says(
    early: bool, model: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names tensor, file and both shapes, and the loader's own report is not shown.

    Of a folder it is told before anything is read, and to clients, too, which read no layer.
    """
    edit(model / "config.json", intermediate_size=64)
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, *(("tensor", None) if early else ("stored", dict)))
    use = rehearsal.rehearsed if early else partial(Span.load, first=0, last=1)
    with pytest.raises(UnsupportedModel, match="do not fit its configuration") as caught:
        use(checkpoint)
    said = str(caught.value)
    assert re.search(r"model\.layers\.0\.mlp\.\w+\.weight in model-0\d+-of-\d+\.safetensors", said)
    assert "[32, 48]" in said
    assert "[32, 64]" in said
    assert logged == []


def test_layers_that_the_files_do_not_hold_are_told_before_anything_is_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(model / "config.json", num_hidden_layers=5)
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, "tensor", None)
    with pytest.raises(UnsupportedModel, match=r"lacks the weights of model\.layers\.4\."):
        rehearsal.rehearsed(checkpoint)


def test_tensors_that_are_merged_are_named_by_one_of_them(tmp_path: Path) -> None:
    """Experts lie one by one in the files, and together in the model."""
    ARCHITECTURES["qwen3_moe"].save(tmp_path)
    edit(tmp_path / "config.json", moe_intermediate_size=8)
    with pytest.raises(UnsupportedModel, match=r"experts\.0\.\w+\.weight in model-0"):
        rehearsal.rehearsed(Checkpoint.open(str(tmp_path)))


@pytest.mark.parametrize("model_type", ["bert", "mamba", "falcon_h1"])
def test_libraries_say_nothing_before_our_sentence(
    model_type: str, model: Path, logged: list[str]
) -> None:
    edit(model / "config.json", model_type=model_type)
    with pytest.raises(SwarmError) as caught:
        use(model)
    assert caught.value.exit_code == ExitCode.LOCAL
    assert logged == []


def test_transformers_logs_again_afterwards() -> None:
    before = transformers_logging.get_verbosity()
    with QUIET:
        with QUIET:
            pass
        assert transformers_logging.get_verbosity() > logging.CRITICAL
    assert transformers_logging.get_verbosity() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "x"}'])
def test_a_damaged_generation_configuration_is_told_at_a_look(content: str, model: Path) -> None:
    (model / "generation_config.json").write_text(content)
    with pytest.raises(DamagedModel, match=r"generation_config\.json"):
        look(str(model))


@pytest.mark.parametrize(
    ("shift", "how"), [(4, "does not begin where another ends"), (-4, "overlaps another")]
)
def test_tensors_that_overlap_or_leave_a_hole_are_told_at_a_look(
    shift: int, how: str, model: Path
) -> None:
    path = shard(model)

    def change(header: dict[str, Any]) -> None:
        tensors = [each for name, each in header.items() if name != "__metadata__"]
        tensor = sorted(tensors, key=lambda each: each["data_offsets"])[1]
        start, stop = tensor["data_offsets"]
        tensor["data_offsets"] = [start + shift, stop + shift]

    rewrite_header(path, change)
    with pytest.raises(DamagedModel, match=f"{re.escape(path.name)}.*{how}"):
        look(str(model))


def test_a_gguf_file_is_told_apart_from_a_model_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "model-q4.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    for name in (str(file), str(tmp_path), "someone/model-q4.gguf"):
        with pytest.raises(UnsupportedModel, match="GGUF files are not read"):
            look(name)
        with pytest.raises(UnsupportedModel, match="GGUF files are not read"):
            Checkpoint.open(name)
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="it is a file"):
        look(str(tmp_path / "weights"))


def test_a_language_model_inside_another_one_is_told(model: Path, tmp_path: Path) -> None:
    """A LLaVA whose language model is this one: the weights have its names with a word before
    them."""
    config = json.loads((model / "config.json").read_text())
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    wrapped = {
        "model_type": "llava",
        "text_config": config,
        "vision_config": vision,
        "image_token_id": 3,
    }
    (model / "config.json").write_text(json.dumps(wrapped))
    for file in model.glob("*.safetensors"):
        save_file({f"language_model.{name}": each for name, each in load_file(file).items()}, file)
    index = model / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={f"language_model.{name}": file for name, file in names.items()})
    checkpoint = Checkpoint.open(str(model))
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 0, 1)):
        with pytest.raises(UnsupportedModel, match="a part of a llava model"):
            load()
    edit(model / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(UnsupportedModel, match="quantization_config"):
        look(str(model))


@pytest.fixture(autouse=True)
def _each_configuration_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_passed", set())
