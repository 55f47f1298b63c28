"""Tiny heads in the layouts in which they are published, and what they say: plain torch, no cache.

A `Reference` reads every token's whole line anew, by the true features of settled tokens and by the
states that tokens in flight were read by.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, silu

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import COMMON, Architecture

HIDDEN = int(COMMON["hidden_size"])
EPS = 1e-6
THETA = 10000.0
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": COMMON["vocab_size"],
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "hidden_act": "silu",
    "eos_token_id": 2,
}


def weights(*shape: int, about: float = 0.0) -> Tensor:
    return about + 0.2 * torch.randn(shape)


def llama_layer(*norms: str) -> dict[str, Tensor]:
    """Random tensors of one layer."""
    heads, kv_heads, dim, wide = 4, 2, HIDDEN // 4, 48
    matrices = {
        "self_attn.q_proj": (heads * dim, HIDDEN),
        "self_attn.k_proj": (kv_heads * dim, HIDDEN),
        "self_attn.v_proj": (kv_heads * dim, HIDDEN),
        "self_attn.o_proj": (HIDDEN, heads * dim),
        "mlp.gate_proj": (wide, HIDDEN),
        "mlp.up_proj": (wide, HIDDEN),
        "mlp.down_proj": (HIDDEN, wide),
    }
    layer = {f"{name}.weight": weights(*shape) for name, shape in matrices.items()}
    return layer | {f"{name}.weight": weights(HIDDEN, about=1.0) for name in norms}


def save_target(folder: Path, more: dict[str, Tensor] | None = None, **settings: Any) -> Path:
    """Save a Llama with random weights, and further tensors in its checkpoint."""
    Architecture("llama", settings).save(folder)
    tokenizer_of(WORDS).save_pretrained(folder)
    add_tensors(folder, more or {})
    return folder


def add_tensors(folder: Path, more: dict[str, Tensor]) -> None:
    """Put further tensors into a checkpoint."""
    if more:
        index = folder / "model.safetensors.index.json"
        listed = json.loads(index.read_text())
        save_file(more, folder / "further.safetensors", {"format": "pt"})
        listed["weight_map"] |= dict.fromkeys(more, "further.safetensors")
        index.write_text(json.dumps(listed))


def target_tensors(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def save_eagle(
    folder: Path,
    *,
    bias: bool = True,
    layers: int = 1,
    more: dict[str, Tensor] | None = None,
    pickled: bool = False,
) -> Path:
    """Save a head as EAGLE-1 and EAGLE-2 are published."""
    torch.manual_seed(5)
    tensors = {"fc.weight": weights(HIDDEN, 2 * HIDDEN), "embed_tokens.weight": weights(97, HIDDEN)}
    for index in range(layers):
        norms = ("post_attention_layernorm", *["input_layernorm"] * (index > 0))
        tensors |= {f"layers.{index}.{name}": each for name, each in llama_layer(*norms).items()}
    if bias:
        tensors["fc.bias"] = weights(HIDDEN)
    tensors |= more or {}
    folder.mkdir(parents=True, exist_ok=True)
    config = {**LLAMA, "num_hidden_layers": layers, "bias": bias, "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def behind_the_last(number: int) -> dict[str, Tensor]:
    """The layer behind the last one, as in DeepSeek-V3 and GLM-4.5."""
    torch.manual_seed(6)
    layer = llama_layer("input_layernorm", "post_attention_layernorm")
    layer |= {f"{name}.weight": weights(HIDDEN, about=1.0) for name in ("enorm", "hnorm")}
    layer["shared_head.norm.weight"] = weights(HIDDEN, about=1.0)
    layer["eh_proj.weight"] = weights(HIDDEN, 2 * HIDDEN)
    layer["shared_head.head.weight"] = weights(97, HIDDEN)
    layer["embed_tokens.weight"] = weights(97, HIDDEN)
    return {f"model.layers.{number}.{name}": each for name, each in layer.items()}


def beside_the_model() -> dict[str, Tensor]:
    """The layer beside the model, as in Qwen3-Next and Qwen3.5."""
    torch.manual_seed(7)
    layer = llama_layer("input_layernorm", "post_attention_layernorm")
    tensors = {f"mtp.layers.0.{name}": each for name, each in layer.items()}
    for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"):
        tensors[f"mtp.{name}.weight"] = weights(HIDDEN, about=1.0)
    return tensors | {"mtp.fc.weight": weights(HIDDEN, 2 * HIDDEN)}


def norm(x: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return x
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn ``[n, heads, dim]`` by positions, halves as Llama pairs them."""
    half = x.shape[-1] // 2
    angles = positions[:, None].float() * THETA ** (-torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def run_layer(t: dict[str, Tensor], prefix: str, x: Tensor, positions: Tensor) -> Tensor:
    """One Llama layer over ``[n, hidden]``."""

    def project(name: str, rows: Tensor) -> Tensor:
        return linear(rows, t[f"{prefix}{name}.weight"], t.get(f"{prefix}{name}.bias"))

    entered = norm(x, t.get(f"{prefix}input_layernorm.weight"))
    n, dim = len(x), HIDDEN // 4
    q = rotate(project("self_attn.q_proj", entered).view(n, 4, dim), positions)
    k = rotate(project("self_attn.k_proj", entered).view(n, 2, dim), positions)
    v = project("self_attn.v_proj", entered).view(n, 2, dim)
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
    attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(n, -1)
    x = x + project("self_attn.o_proj", attended)
    entered = norm(x, t[f"{prefix}post_attention_layernorm.weight"])
    up = silu(project("mlp.gate_proj", entered)) * project("mlp.up_proj", entered)
    return x + project("mlp.down_proj", up)


@dataclass(frozen=True)
class Names:
    """Where the tensors of a layout lie."""

    layers: tuple[str, ...]
    fc: str
    embedding_norm: str = ""
    feature_norm: str = ""
    norm: str = ""
    carries_normed: bool = False


EAGLE = Names(("layers.0.",), "fc")
GLM = Names(
    ("model.layers.4.",),
    "model.layers.4.eh_proj",
    "model.layers.4.enorm",
    "model.layers.4.hnorm",
    "model.layers.4.shared_head.norm",
    carries_normed=True,
)
QWEN = Names(
    ("mtp.layers.0.",),
    "mtp.fc",
    "mtp.pre_fc_norm_embedding",
    "mtp.pre_fc_norm_hidden",
    "mtp.norm",
    carries_normed=True,
)


@dataclass
class Reference:
    """What a head says, with the target's tensors and its own.

    Attributes:
        run_layer: runs one layer over ``[n, hidden]``, given its tensors, their prefix and its
            positions.
        answered: how many of the target's answers the last call knew.
        read_by: of every line that was read since, the feature that its last token was read by.
        states: of every line that was ever read.
    """

    names: Names
    target: dict[str, Tensor]
    head: dict[str, Tensor]
    run_layer: Callable[[dict[str, Tensor], str, Tensor, Tensor], Tensor] = run_layer
    answered: int = 0
    read_by: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    states: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def feature(self, output: Tensor) -> Tensor:
        return norm(output, self.target["model.norm.weight"])

    def run(self, line: tuple[int, ...], features: list[Tensor]) -> Tensor:
        """The state at the end of a line, whose tokens but the first are read by these features."""
        embedded = self.target["model.embed_tokens.weight"][list(line[1:])]
        embedded = norm(embedded, self.head.get(f"{self.names.embedding_norm}.weight"))
        entered = norm(torch.stack(features), self.head.get(f"{self.names.feature_norm}.weight"))
        fc = self.names.fc
        x = torch.cat((embedded, entered), dim=-1)
        x = linear(x, self.head[f"{fc}.weight"], self.head.get(f"{fc}.bias"))
        for layer in self.names.layers:
            x = self.run_layer(self.head, layer, x, torch.arange(len(x)))
        return self._normed(x[-1]) if self.names.carries_normed else x[-1]

    def _normed(self, state: Tensor) -> Tensor:
        return norm(state, self.head.get(f"{self.names.norm}.weight"))

    def logits(self, state: Tensor) -> Tensor:
        predicting = state if self.names.carries_normed else self._normed(state)
        return linear(predicting, self.target["lm_head.weight"])

    def read(self, outputs: list[Tensor], *ends: tuple[int, ...]) -> list[Tensor]:
        """The logits behind some lines, after a call of a drafter that knows the target's answers
        at the first tokens of the text.

        With newer answers than the last call, all that leads to these lines is read anew: in one
        pass what can be read by states that were known before, and then the rest, one token after
        the other.
        """
        if len(outputs) > self.answered:
            self.answered = len(outputs)
            self.read_by.clear()
        leading = {end[:size] for end in ends for size in range(2, len(end) + 1)}
        missing = leading - self.read_by.keys()
        answered = len(outputs) + 1  # lines of so many tokens are read by true features alone
        ready = {line for line in missing if len(line) <= answered or line[:-1] in self.states}
        self._read(ready, outputs)
        for line in sorted(missing - ready, key=len):
            self._read({line}, outputs)
        return [self.logits(self.states[end]) for end in ends]

    def _read(self, lines: set[tuple[int, ...]], outputs: list[Tensor]) -> None:
        """Read the last tokens of some lines in one pass."""
        for line in lines:
            before = len(line) - 2
            true = before < len(outputs)
            self.read_by[line] = self.feature(outputs[before]) if true else self.states[line[:-1]]
        self.states |= {
            line: self.run(line, [self.read_by[line[:size]] for size in range(2, len(line) + 1)])
            for line in lines
        }
