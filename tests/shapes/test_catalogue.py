"""Times of layers follow from published figures; the arithmetic is worked out by hand here."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from swarm.distill.settings import DistillSettings
from swarm.distill.trainable_head import shape_for
from swarm.shapes.catalogue import BATCHES, RTX_4090, SHAPES, Gpu, Layer

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
UNIT = Gpu("unit", bytes_per_s=1e6, flop_per_s=1e6)


def test_a_dense_layer_reads_its_weights_once_and_computes_for_every_position():
    layer = Layer(numel=1000)
    assert layer.ms(1, UNIT) == pytest.approx(2.0 + 2.0)
    assert layer.ms(10, UNIT) == pytest.approx(2.0 + 20.0)


def test_a_quantized_layer_reads_fewer_bytes():
    assert Layer(numel=1000, bits=4.0).ms(1, UNIT) == pytest.approx(0.5 + 2.0)


def test_a_layer_of_experts_reads_those_that_any_position_takes():
    layer = Layer(numel=0, expert_numel=1000, experts=4, chosen=2)
    assert layer.ms(1, UNIT) == pytest.approx(2 * 2.0 + 2 * 2.0)
    # Two positions take 4 (1 - 1/4) = 3 of the four experts.
    assert layer.ms(2, UNIT) == pytest.approx(3 * 2.0 + 4 * 2.0)


def test_all_layers_and_the_head_take_the_time_that_was_published():
    shape = SHAPES["llama-3.1-8b"]
    token_ms = shape.layers * shape.layer.ms(1) + dict(shape.head_ms())[1]
    assert 1e3 / token_ms == pytest.approx(54.84, rel=0.02)


# Published sizes, in billions of weights; those of the embedding are left out where it has its own.
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.1-8b", 8.03 - 0.525),
        ("qwen3-8b", 8.19 - 0.622),
        ("llama-3.3-70b", 70.55 - 1.05),
        ("qwen3-235b-a22b", 235.1 - 0.622),
        ("gpt-oss-120b", 116.8 - 0.579),
    ],
)
def test_shapes_have_the_size_that_their_publishers_say(name, billions):
    shape = SHAPES[name]
    layer = shape.layer.numel + shape.layer.experts * shape.layer.expert_numel
    head = shape.hidden_size * shape.vocab_size
    assert shape.layers * layer + head == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_table_grows_with_the_batch_and_fits_the_peers_by_default(shape):
    batches, times = zip(*shape.layer_ms(), strict=True)
    assert batches == BATCHES
    assert list(times) == sorted(times)
    layer = shape.layer
    bits = layer.numel * layer.bits + layer.experts * layer.expert_numel * layer.expert_bits
    assert shape.layers / shape.peers * bits / 8 < 22e9  # of 24 GB
    assert RTX_4090.bytes_per_s < 1008e9


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_times_of_the_documentation_are_those_of_the_tables(shape):
    times = dict(shape.layer_ms())
    stages = [f"{shape.layers / shape.peers * times[n]:.1f}" for n in (1, 4, 16, 64)]
    lines = DOCUMENT.read_text().splitlines()
    [row] = [line for line in lines if f"| {shape.name} |" in line and " bits |" in line]
    assert row.split(" | ")[2:] == [str(shape.peers), *stages[:-1], f"{stages[-1]} |"]


# Heads, those of keys and values, and their width, as published.
@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("llama-3.1-8b", (32, 8, 128)),
        ("qwen3-8b", (32, 8, 128)),
        ("llama-3.3-70b", (64, 8, 128)),
        ("qwen3-235b-a22b", (64, 4, 128)),
        ("gpt-oss-120b", (64, 8, 64)),
    ],
)
def test_a_draft_head_is_what_distilling_makes(name, attention):
    shape = SHAPES[name]
    heads, kv_heads, head_dim = attention
    config = SimpleNamespace(
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim
    )
    target = SimpleNamespace(config=config, hidden_size=shape.hidden_size, max_positions=None)
    made, head = shape_for(target), shape.draft_head
    assert (made.heads, made.kv_heads, made.head_dim) == (head.heads, head.kv_heads, head.head_dim)
    assert made.weights + head.rows * shape.hidden_size == head.numel(shape)
    assert head.rows == DistillSettings("m", Path("out")).vocab
