"""Model folders of a real size, made on the spot: a head, a draft model, and layers that are empty.

Everything that a client reads has its true size and random content. Layers have the true count and
width, but next to no weights: peers that take part (`peers.compute.scripted`) never run them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from swarm.model.folder import CONFIG_FILE, SINGLE_FILE
from swarm.shapes.catalogue import DraftKind, Shape
from swarm.shapes.script import FIRST_WORD, Script

POSITIONS = 4096  # of a text at most; scripts are as long
SPREAD = 0.02  # standard deviation of random weights, as models begin their training
MOST_RANDOM = 1 << 22  # random numbers that are drawn for a file
DTYPE = torch.bfloat16  # in which checkpoints of these sizes are published
END, UNKNOWN = "<end>", "<unknown>"
SPECIAL = {END: 0, UNKNOWN: 1}  # the other tokens are words
EMBEDDING = "model.embed_tokens.weight"  # of both classes here; the head is the same tensor


def file_bytes(shape: Shape, kind: DraftKind = "model") -> tuple[int, int]:
    """Return about what the weights of the target and of what drafts take on disk."""
    return (
        DTYPE.itemsize * shape.vocab_size * shape.hidden_size,
        DTYPE.itemsize * shape.drafting(kind).numel(shape),
    )


def write_target(shape: Shape, folder: Path, seed: int = 0) -> Script:
    """Write a model of this shape, and the script of its peers, which is returned.

    Its class is Llama's, with the head tied to the embedding: half of the file, the same cost.
    """
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        intermediate_size=1,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        eos_token_id=SPECIAL[END],
        bos_token_id=None,
    )
    _write(config, folder, seed, (EMBEDDING, "model.norm.weight"))
    _write_tokenizer(shape.vocab_size, folder)
    script = Script.of(shape.vocab_size, POSITIONS, shape.layer_ms(), shape.head_ms(), seed)
    script.save(folder)
    return script


def write_draft(shape: Shape, folder: Path, seed: int = 1) -> None:
    """Write the draft model of this shape, whole."""
    draft = shape.draft
    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=draft.hidden_size,
        num_hidden_layers=draft.layers,
        intermediate_size=draft.inner,
        num_attention_heads=draft.heads,
        num_key_value_heads=draft.kv_heads,
        head_dim=draft.head_dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        eos_token_id=SPECIAL[END],
        bos_token_id=None,
    )
    _write(config, folder, seed)
    _write_tokenizer(shape.vocab_size, folder)


def write_draft_head(shape: Shape, folder: Path, seed: int = 1) -> None:
    """Write a head in the form of `swarm.distill.layout`, whole but for the target's rows.

    It predicts the first tokens of the vocabulary, as many as it has rows for.
    """
    head, width = shape.draft_head, shape.hidden_size
    wide, narrow = head.head_dim * head.heads, head.head_dim * head.kv_heads
    sizes = {
        "fc.weight": (width, 2 * width),
        "layers.0.self_attn.q_proj.weight": (wide, width),
        "layers.0.self_attn.k_proj.weight": (narrow, width),
        "layers.0.self_attn.v_proj.weight": (narrow, width),
        "layers.0.self_attn.o_proj.weight": (width, wide),
        "layers.0.post_attention_layernorm.weight": (width,),
        "layers.0.mlp.gate_proj.weight": (width, width),
        "layers.0.mlp.up_proj.weight": (width, width),
        "layers.0.mlp.down_proj.weight": (width, width),
    }
    numbers = _random_numbers(seed)
    tensors = {
        name: torch.cat(list(_content(size, numbers.roll(number))))
        for number, (name, size) in enumerate(sizes.items())
    }
    folder.mkdir(parents=True, exist_ok=True)
    rows = min(head.rows, shape.vocab_size)
    tensors["d2t"] = torch.zeros(rows, dtype=torch.long)  # of each row, its token less its number
    save_file(tensors, folder / SINGLE_FILE)
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": head.heads,
        "num_key_value_heads": head.kv_heads,
        "head_dim": head.head_dim,
        "max_position_embeddings": POSITIONS,
        "vocab_size": shape.vocab_size,
        "draft_vocab_size": rows,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def _write(
    config: PreTrainedConfig, folder: Path, seed: int, filled: Iterable[str] | None = None
) -> None:
    """Write configuration and weights.

    Args:
        filled: names of the weights that have content, None for all; others take no room on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config.dtype = DTYPE
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in whole.state_dict().items()}
    del shapes["lm_head.weight"]  # tied
    config.architectures = [type(whole).__name__]
    config.save_pretrained(folder)
    wanted = shapes if filled is None else frozenset(filled)
    numbers = _random_numbers(seed)
    with (folder / SINGLE_FILE).open("wb") as file:
        file.write(_header(shapes))
        for number, (name, shape) in enumerate(shapes.items()):
            if name in wanted:
                for part in _content(shape, numbers.roll(number)):
                    file.write(part.view(torch.int16).numpy().tobytes())
            else:
                file.seek(DTYPE.itemsize * torch.Size(shape).numel(), 1)
        file.truncate()  # up to here, with holes in between


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return the beginning of a safetensors file: https://huggingface.co/docs/safetensors."""
    entries = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + DTYPE.itemsize * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _random_numbers(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (SPREAD * torch.randn(MOST_RANDOM, generator=draw)).to(DTYPE)


def _content(shape: tuple[int, ...], numbers: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a weight. No two rows are alike; norms are ones.

    All rows are random numbers that are used again, rotated: to draw each takes ten times as long.
    """
    if len(shape) == 1:
        yield torch.ones(shape, dtype=DTYPE)
        return
    rows, width = shape
    count = min(rows, len(numbers) // width)
    block = numbers[: count * width].view(count, width)
    for turn, start in enumerate(range(0, rows, count)):
        yield block.roll(turn, dims=1)[: rows - start]


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    """Write a tokenizer whose token i is the word ``wi``, but for the special ones."""
    words = {f"w{token}": token for token in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel({**SPECIAL, **words}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
