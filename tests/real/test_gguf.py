"""GGUF files that are not ours are served as they are: weights, tokens, text and memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from helpers.swarm_in_process import Material, Swarm, swarm_of
from peers.compute.memory import MemoryNeeds
from swarm.client.models import ClientModels
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.stored.packed import PackedTensor
from swarm.model.whole import read_whole

NEW_TOKENS = 12
PROMPTS = ("The capital of France is", "Once upon a time, there was", "def fibonacci(n):\n")
TEXTS = (
    *PROMPTS,
    "  spaces   and\n\n\ttabs, 2024 has 366 days; déjà vu 你好 🙂",
    "<|im_start|>user\nHi<|im_end|><start_of_turn>user\nhi<end_of_turn>",
    "",
)


class Real(NamedTuple):
    """A checkpoint as a file, the folder that transformers has made of it, and places to cut it."""

    file: Path
    folder: Path
    stages: tuple[tuple[int, int], ...]


STAGES = {"smollm2": ((0, 10), (10, 20), (20, 30)), "gemma3": ((0, 7), (7, 18))}


@pytest.fixture(scope="module", params=STAGES)
def real(request: pytest.FixtureRequest) -> Real:
    name = request.param
    file = request.getfixturevalue(f"{name}_file")
    return Real(file, request.getfixturevalue(name), STAGES[name])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_weights_are_what_transformers_makes_of_the_file(real: Real) -> None:
    checkpoint = Checkpoint.open(str(real.file))
    packed = 0
    with safe_open(real.folder / "model.safetensors", framework="pt") as expected:
        assert set(checkpoint.tensor_names()) == set(expected.keys())
        for name in checkpoint.tensor_names():
            tensor = checkpoint.tensor(name)
            if isinstance(tensor, PackedTensor):
                packed += 1
                tensor = tensor.widen(torch.float32)
            assert torch.equal(tensor.to(torch.bfloat16), expected.get_tensor(name)), name
    assert packed == 7 * checkpoint.num_layers


def test_tokens_are_those_of_transformers(real: Real) -> None:
    own = Checkpoint.open(str(real.file)).tokenizer()
    expected = AutoTokenizer.from_pretrained(real.folder)
    assert own.get_vocab() == expected.get_vocab()
    assert own.chat_template == expected.chat_template
    for text in TEXTS:
        ids = own(text).input_ids
        assert ids == expected(text).input_ids, text
        assert own.decode(ids) == expected.decode(ids)


async def test_greedy_text_over_a_chain_is_that_of_transformers(real: Real) -> None:
    """transformers computes with the file's weights made wide, in float32."""
    checkpoint = Checkpoint.open(str(real.file))
    spans = {span: Span.load(checkpoint, *span) for span in real.stages}
    material = Material(checkpoint, spans, ClientModels.load(str(real.file), None))
    tokenizer = material.models.tokenizer
    whole, _ = read_whole(str(real.file), torch.float32)
    async with swarm_of(lambda: Swarm(material), *spans) as swarm:
        for prompt in PROMPTS:
            ids = tokenizer(prompt).input_ids
            text = whole.eval().generate(
                torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False
            )
            expected = text[0, len(ids) :]
            stream = swarm.stream(
                ids, max_new_tokens=NEW_TOKENS, logit_bias={}, lookup=False, patience_s=60.0
            )
            pieces = [piece.text async for piece in stream]
            assert stream.result.token_ids == tuple(expected.tolist())
            assert "".join(pieces) == tokenizer.decode(expected, skip_special_tokens=True)


LOADING = """
import gc, sys
from pathlib import Path
import torch
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work

def own_bytes():  # files that are mapped do not count
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10

torch.set_num_threads(1)
checkpoint = Checkpoint.open(sys.argv[1])
Span.load(checkpoint, 0, 1, dtype=torch.bfloat16)  # libraries take memory, too, once
before = own_bytes()
span = Span.load(checkpoint, 0, checkpoint.num_layers, dtype=torch.bfloat16)
print(own_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_peer_takes_the_memory_that_it_announces(real: Real) -> None:
    checkpoint = Checkpoint.open(str(real.file))
    needs = MemoryNeeds.of(checkpoint, torch.bfloat16, torch.device("cpu"))
    announced = needs.weights(0, checkpoint.num_layers)
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(real.file)],
        # What is freed goes back at once: else it stays in a heap.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    assert announced == pytest.approx(int(done.stdout), rel=0.05)
