"""Quantized layers equal transformers' own, are near the plain ones, and are another model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers.utils
from transformers import AutoModelForCausalLM

from helpers.local_chain import Chain, assert_equal_logits, tokens, whole_logits
from helpers.models import ARCHITECTURES, LAYERS, Architecture
from peers.compute.memory import MemoryNeeds
from swarm.errors import ConfigError, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8, NF4, Quantization, named, settle
from swarm.model.span import Span
from swarm.model.stored.packed import PackedTensor
from swarm.model.work import Work

CPU = torch.device("cpu")
BOTH = [INT8, NF4]
WIDE = Architecture("llama", {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
HEAVY = Architecture(
    "llama",
    {"hidden_size": 512, "intermediate_size": 1536, "head_dim": 64, "num_attention_heads": 8},
)
MB = 1 << 20

pytest.importorskip("torchao", reason="quantized weights are an extra: pip install 'swarm[quant]'")
pytest.importorskip(
    "bitsandbytes", reason="quantized weights are an extra: pip install 'swarm[quant]'"
)
pytest.importorskip(
    "accelerate", reason="quantized weights are an extra: pip install 'swarm[quant]'"
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose rows are whole blocks of 64 weights."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    WIDE.save(folder)
    return str(folder)


@pytest.mark.parametrize("quantization", BOTH, ids=lambda each: each.name)
def test_two_quantized_spans_are_what_transformers_makes_of_the_model(
    wide: str, quantization: Quantization
) -> None:
    """In chunks, beside a neighbour, and after a rollback."""
    whole = AutoModelForCausalLM.from_pretrained(
        wide,
        dtype=torch.float32,
        attn_implementation="eager",
        device_map={"": "cpu"},
        quantization_config=quantization.settings(["lm_head"], torch.float32),
    ).eval()
    settle(whole)
    chain = Chain(Checkpoint.open(wide, quantization))
    assert all(span.packs and span.branches for span in chain.spans)
    text, other = tokens(9, seed=1), tokens(6, seed=2)
    session, neighbour = chain.open(), chain.open()
    first = chain.run((session, text[:5]))[0]
    second, beside = chain.run((session, text[5:]), (neighbour, other))
    assert_equal_logits(torch.cat([first, second]), whole_logits(whole, text))
    assert_equal_logits(beside, whole_logits(whole, other))

    again = torch.cat([text[:7], tokens(2, seed=3)])
    back = session.place(2, epoch=1, root=7, parents=(3, 1))
    assert_equal_logits(
        chain.run_placed((session, again[7:], back))[0], whole_logits(whole, again)[7:]
    )


@pytest.mark.parametrize("architecture", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("quantization", BOTH, ids=lambda each: each.name)
def test_experts_that_are_one_parameter_are_quantized_like_linear_layers(
    architecture: str, quantization: Quantization, tmp_path: Path
) -> None:
    """In memory that was known before, and near the plain ones."""
    own = ARCHITECTURES[architecture]
    sizes = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64}
    sizes |= {"head_dim": 16}
    Architecture(own.model_type, {**own.settings, **sizes}).save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path), quantization)
    needs = MemoryNeeds.of(checkpoint, torch.float32, CPU)
    span = Span.load(checkpoint, 0, LAYERS)
    assert span.packs
    assert needs.weights(0, LAYERS) == pytest.approx(span.nbytes, rel=0.05)
    plain = Span.load(Checkpoint.open(str(tmp_path)), 0, LAYERS)
    experts = [each for each in parameters(span) if each.dim() == 3]
    assert len(experts) == len([each for each in parameters(plain) if each.dim() == 3])
    assert all(isinstance(each, PackedTensor) for each in experts)
    for packed, wide in zip(experts, (p for p in parameters(plain) if p.dim() == 3), strict=True):
        assert isinstance(packed, PackedTensor)
        error = (packed.widen() - wide).norm() / wide.norm()
        assert error < (0.02 if quantization is INT8 else 0.15)


def parameters(span: Span) -> list[torch.Tensor]:
    return list(span._decoder.parameters())


def test_fewer_bits_are_further_from_the_weights_as_they_are(wide: str) -> None:
    text = tokens(20, seed=1)

    def outputs(quantization: Quantization | None) -> torch.Tensor:
        span = Span.load(Checkpoint.open(wide, quantization), 0, LAYERS)
        return span.forward([Work.behind(span.new_cache(), text)])[0]

    plain = outputs(None)
    int8, nf4 = ((outputs(each) - plain).norm() / plain.norm() for each in BOTH)
    assert 0 < int8 < 0.1
    assert 3 * int8 < nf4 < 0.8


@pytest.mark.parametrize("quantization", BOTH, ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_computed_with_keeps_its_dtype(
    wide: str, quantization: Quantization, dtype: torch.dtype
) -> None:
    span = Span.load(Checkpoint.open(wide, quantization), 1, 3, dtype=dtype)
    assert span.dtype == dtype
    output = span.forward([Work.behind(span.new_cache(), torch.randn(3, 64))])[0]
    assert output.dtype == dtype


def test_every_quantization_is_another_model(wide: str) -> None:
    plain, *quantized = (Checkpoint.open(wide, each) for each in (None, *BOTH))
    assert [each.name for each in (plain, *quantized)] == ["wide", "wide-int8", "wide-nf4"]
    assert len({each.fingerprint for each in (plain, *quantized)}) == 3
    assert plain.siblings == {
        each.fingerprint: each.quantization.name for each in quantized if each.quantization
    }
    assert quantized[0].siblings == {plain.fingerprint: "none", quantized[1].fingerprint: "nf4"}


LOADING = """
import gc, sys, threading
from pathlib import Path
import torch
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import named
from swarm.model.span import Span

def own_bytes():  # files that are mapped do not count
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10

def watch():
    while not over.wait(0.001):
        peaks.append(own_bytes())

torch.set_num_threads(1)
folder, layers, *names = sys.argv[1:]
for name in names:
    checkpoint = Checkpoint.open(folder, named(name))
    Span.load(checkpoint, 0, 1)  # libraries take memory, too, once
    gc.collect()
    over, peaks, before = threading.Event(), [], own_bytes()
    watching = threading.Thread(target=watch)
    watching.start()
    span = Span.load(checkpoint, 0, int(layers))
    over.set()
    watching.join()
    print(span.nbytes, max(peaks) - before)
    del span
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_needs_are_what_quantized_layers_take(tmp_path: Path) -> None:
    folder = str(tmp_path / "heavy")
    HEAVY.save(tmp_path / "heavy")
    done = subprocess.run(
        [sys.executable, "-c", LOADING, folder, str(LAYERS), *(each.name for each in BOTH)],
        # What is freed goes back at once: else it stays in a heap, which the tensors of a real
        # model are too large for.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    plain = MemoryNeeds.of(Checkpoint.open(folder), torch.float32, CPU).weights(0, LAYERS)
    for quantization, line in zip(BOTH, done.stdout.splitlines(), strict=True):
        needs = MemoryNeeds.of(Checkpoint.open(folder, quantization), torch.float32, CPU)
        nbytes, peak = map(int, line.split())
        assert needs.weights(0, LAYERS) == pytest.approx(nbytes, rel=0.01)
        assert nbytes < plain * quantization.bits / 32 * 1.2
        # Never all of it as it was: quantized layers, and one tensor that is being quantized.
        assert (
            0.95 * nbytes < peak < needs.weights(0, LAYERS) + needs.loading_bytes + 2 * MB < plain
        )


@pytest.mark.parametrize(
    ("architecture", "quantization", "words"),
    [
        ("mixtral", NF4, "nf4 needs rows of whole blocks of 64 weights, and one has 32"),
        ("llama", NF4, "nf4 needs rows of whole blocks of 64 weights, and one has 32"),
    ],
)
def test_what_cannot_be_quantized_is_refused_before_it_is_read(
    architecture: str, quantization: Quantization, words: str, tmp_path: Path
) -> None:
    ARCHITECTURES[architecture].save(tmp_path)
    with pytest.raises(UnsupportedModel, match=words):
        MemoryNeeds.of(Checkpoint.open(str(tmp_path), quantization), torch.float32, CPU)


def test_what_this_computer_cannot_do_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for quantization in BOTH:
        quantization.check(CPU)
        with pytest.raises(ConfigError, match="on cpu and cuda only, not on mps"):
            quantization.check(torch.device("mps"))
    monkeypatch.setattr(transformers.utils, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"nf4 needs bitsandbytes, .* pip install 'swarm\[quant\]'"
    ):
        NF4.check(CPU)


def test_names() -> None:
    assert [named(name) for name in (None, "none", "int8", "nf4")] == [None, None, *BOTH]
    with pytest.raises(ConfigError, match="'int3' is none that we know; give none, int8 or nf4"):
        named("int3")
