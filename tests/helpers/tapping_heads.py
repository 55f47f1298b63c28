"""Tiny heads that read several layers of the target, as they are published, and what they say:
plain torch, no cache."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, silu

from helpers.feature_heads import (
    HIDDEN,
    LLAMA,
    Names,
    Reference,
    llama_layer,
    norm,
    rotate,
    weights,
)
from helpers.models import VOCAB
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import Draft, load_any_draft

TAPS = (0, 1, 3)
KEPT = [token for token in range(VOCAB) if token % 3]  # of a trimmed vocabulary
BLOCK = 5
MASK = 96
RANK = 8

PLAIN = ComputeOptions(device="cpu", draft_dtype="float32")
TEXT = [5, 9, 40, 7, 33, 21]
OUTPUTS = list(torch.randn(8, len(TAPS), HIDDEN, generator=torch.Generator().manual_seed(3)))


def load(name: Path, target: Path) -> Draft:
    """The head of a folder, ready to draft for a target."""
    checkpoint = Checkpoint.open(str(target))
    return load_any_draft(str(name), checkpoint, checkpoint.tokenizer(), PLAIN)


def features(count: int) -> list[Feature]:
    """What the target's layers gave at the first tokens of `TEXT`."""
    return [Feature(at, (), output) for at, output in enumerate(OUTPUTS[:count])]


def close(guess: Drafted, expected: Tensor) -> bool:
    """Whether a guess was made of these logits, but for rounding."""
    assert guess.logits is not None
    assert guess.logits.isfinite().equal(expected.isfinite())
    told = expected.isfinite()
    error = (guess.logits[told] - expected[told]).norm() / expected[told].norm()
    return float(error) < 1e-4


def save(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def trimmed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a vocabulary of the head's own."""
    kept = torch.tensor(KEPT)
    return {
        **tensors,
        "lm_head.weight": weights(len(kept), HIDDEN),
        "d2t": kept - torch.arange(len(kept)),
        "t2d": torch.isin(torch.arange(VOCAB), kept),
    }


def eagle3_tensors(layer: str, fc_norm: bool, input_norm: bool) -> dict[str, Tensor]:
    torch.manual_seed(8)
    parts = llama_layer("input_layernorm", "hidden_norm", "post_attention_layernorm")
    for name in ("q_proj", "k_proj", "v_proj"):
        rows = len(parts[f"self_attn.{name}.weight"])
        parts[f"self_attn.{name}.weight"] = weights(rows, 2 * HIDDEN)
    tensors = {f"{layer}{name}": each for name, each in parts.items()}
    width = len(TAPS) * HIDDEN
    tensors |= {"fc.weight": weights(HIDDEN, width), "norm.weight": weights(HIDDEN, about=1.0)}
    if fc_norm:
        for index in range(len(TAPS)):
            tensors[f"fc_norm.{index}.weight"] = weights(HIDDEN, about=1.0)
    if input_norm:
        tensors["input_norm.weight"] = weights(width, about=1.0)
    return tensors


def save_specforge(folder: Path, *, whole: bool = False, layers: tuple[int, ...] = TAPS) -> Path:
    """Save a head as SpecForge and SGLang have it, whose numbers name layers."""
    tensors = eagle3_tensors("midlayer.", fc_norm=False, input_norm=False)
    tensors = tensors | {"lm_head.weight": weights(VOCAB, HIDDEN)} if whole else trimmed(tensors)
    config = {
        **LLAMA,
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": len(tensors["lm_head.weight"]),
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": list(layers)},
    }
    return save(folder, config, tensors)


def save_speculators(folder: Path, **settings: Any) -> Path:
    """Save a head as vLLM's speculators have it, whose numbers name places behind layers."""
    tensors = eagle3_tensors(
        "layers.0.", bool(settings.get("fc_norm")), bool(settings.get("norm_before_fc"))
    )
    config = {
        "speculators_model_type": "eagle3",
        "architectures": ["Eagle3Speculator"],
        "transformer_layer_config": LLAMA,
        "draft_vocab_size": len(KEPT),
        "eagle_aux_hidden_state_layer_ids": [layer + 1 for layer in TAPS],
        **settings,
    }
    return save(folder, config, trimmed(tensors))


@dataclass
class Eagle3Reference(Reference):
    """What an EAGLE-3 head says.

    Attributes:
        layer: where its layer lies.
        normed_residual: as in the configuration.
    """

    layer: str = "midlayer."
    normed_residual: bool = False

    def feature(self, output: Tensor) -> Tensor:
        parts = [
            norm(part, self.head.get(f"fc_norm.{index}.weight"))
            for index, part in enumerate(output)
        ]
        joined = norm(torch.cat(parts), self.head.get("input_norm.weight"))
        return linear(joined, self.head["fc.weight"])

    def run(self, line: tuple[int, ...], features: list[Tensor]) -> Tensor:
        t, prefix = self.head, self.layer
        embedded = self.target["model.embed_tokens.weight"][list(line[1:])]
        feature = torch.stack(features)
        normed = norm(feature, t[f"{prefix}hidden_norm.weight"])
        entered = torch.cat((norm(embedded, t[f"{prefix}input_layernorm.weight"]), normed), dim=-1)
        x = (normed if self.normed_residual else feature) + attention(t, prefix, entered)
        x = x + mlp(t, prefix, norm(x, t[f"{prefix}post_attention_layernorm.weight"]))
        return self._normed(x[-1]) if self.names.carries_normed else x[-1]

    def logits(self, state: Tensor) -> Tensor:
        predicting = state if self.names.carries_normed else self._normed(state)
        return in_vocabulary(linear(predicting, self.head["lm_head.weight"]))


def eagle3_names(carries_normed: bool) -> Names:
    return Names((), "fc", norm="norm", carries_normed=carries_normed)


def in_vocabulary(logits: Tensor) -> Tensor:
    """The logits of all tokens, from those of the kept ones."""
    if logits.shape[-1] == VOCAB:
        return logits
    whole = torch.full((*logits.shape[:-1], VOCAB), float("-inf"))
    whole[..., KEPT] = logits
    return whole


def attention(t: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """What ``[n, wide]`` attend to, each to itself and those before it."""
    n, dim = len(x), HIDDEN // 4
    positions = torch.arange(n)
    q = rotate(linear(x, t[f"{prefix}self_attn.q_proj.weight"]).view(n, 4, dim), positions)
    k = rotate(linear(x, t[f"{prefix}self_attn.k_proj.weight"]).view(n, 2, dim), positions)
    v = linear(x, t[f"{prefix}self_attn.v_proj.weight"]).view(n, 2, dim)
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
    attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(n, -1)
    return linear(attended, t[f"{prefix}self_attn.o_proj.weight"])


def mlp(t: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    gate, up = (linear(x, t[f"{prefix}mlp.{name}_proj.weight"]) for name in ("gate", "up"))
    return linear(silu(gate) * up, t[f"{prefix}mlp.down_proj.weight"])


# Block heads.

QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": HIDDEN // 4, "num_hidden_layers": 2}


def block_tensors(markov: str = "") -> dict[str, Tensor]:
    """Random tensors; with a bias, if the beginning of its tensors' names is given."""
    torch.manual_seed(9)
    tensors = {
        "fc.weight": weights(HIDDEN, len(TAPS) * HIDDEN),
        "hidden_norm.weight": weights(HIDDEN, about=1.0),
        "norm.weight": weights(HIDDEN, about=1.0),
    }
    for index in range(2):
        layer = llama_layer("input_layernorm", "post_attention_layernorm")
        for name in ("q_norm", "k_norm"):
            layer[f"self_attn.{name}.weight"] = weights(HIDDEN // 4, about=1.0)
        tensors |= {f"layers.{index}.{name}": each for name, each in layer.items()}
    if markov:
        tensors[f"{markov}markov_w1.weight"] = weights(VOCAB, RANK)
        tensors[f"{markov}markov_w2.weight"] = 5 * weights(VOCAB, RANK)
    return tensors


def save_dflash(folder: Path, **settings: Any) -> Path:
    """Save a head as z-lab have it."""
    config = {
        **QWEN3,
        "architectures": ["DFlashDraftModel"],
        "block_size": BLOCK,
        "dflash_config": {"target_layer_ids": list(TAPS), "mask_token_id": MASK, **settings},
    }
    return save(folder, config, block_tensors())


def save_dspark(folder: Path) -> Path:
    """Save a head as DeepSpec has it."""
    config = {
        **QWEN3,
        "architectures": ["Qwen3DSparkModel"],
        "block_size": BLOCK,
        "target_layer_ids": list(TAPS),
        "mask_token_id": MASK,
        "markov_rank": RANK,
        "markov_head_type": "vanilla",
    }
    return save(folder, config, block_tensors("markov_head."))


def save_speculators_dspark(folder: Path) -> Path:
    """Save a head as vLLM's speculators have it, with a vocabulary of its own."""
    tensors = trimmed(block_tensors("markov_head."))
    tensors["markov_head.markov_w2.weight"] = 5 * weights(len(KEPT), RANK)
    config = {
        "speculators_model_type": "dspark",
        "architectures": ["DSparkSpeculator"],
        "transformer_layer_config": QWEN3,
        "block_size": BLOCK,
        "aux_hidden_state_layer_ids": [layer + 1 for layer in TAPS],
        "mask_token_id": MASK,
        "sample_from_anchor": True,
        "draft_vocab_size": len(KEPT),
        "markov_rank": RANK,
    }
    return save(folder, config, tensors)


@dataclass
class BlockReference:
    """What a block head says, with the target's tensors and its own."""

    target: dict[str, Tensor]
    head: dict[str, Tensor]
    from_anchor: bool
    causal: bool = False

    def read(self, outputs: list[Tensor], line: tuple[int, ...]) -> Tensor:
        """The logits behind a line, of which the target's outputs at the first tokens are known."""
        t, anchor = self.head, len(outputs)
        known = line[anchor:]
        tokens = [*known, *[MASK] * BLOCK][:BLOCK]
        context = torch.stack(outputs).flatten(1)
        context = norm(linear(context, t["fc.weight"]), t["hidden_norm.weight"])
        x = self.target["model.embed_tokens.weight"][tokens]
        positions = torch.arange(anchor + BLOCK)
        for index in range(2):
            x = self._layer(f"layers.{index}.", context, x, positions)
        slot = len(known) - 1 if self.from_anchor else len(known)
        lm_head = t.get("lm_head.weight", self.target["lm_head.weight"])
        logits = linear(norm(x[slot], t["norm.weight"]), lm_head)
        bias = next((each for name, each in t.items() if name.endswith("markov_w1.weight")), None)
        if bias is not None:
            out = next(each for name, each in t.items() if name.endswith("markov_w2.weight"))
            logits = logits + linear(bias[known[-1]], out)
        return in_vocabulary(logits)

    def _layer(self, prefix: str, context: Tensor, x: Tensor, positions: Tensor) -> Tensor:
        t, dim = self.head, HIDDEN // 4
        entered = norm(x, t[f"{prefix}input_layernorm.weight"])
        rows = torch.cat((context, entered))

        def heads(name: str, of: Tensor) -> Tensor:
            return linear(of, t[f"{prefix}self_attn.{name}_proj.weight"]).view(len(of), -1, dim)

        q = rotate(
            norm(heads("q", entered), t[f"{prefix}self_attn.q_norm.weight"]),
            positions[len(context) :],
        )
        k = rotate(norm(heads("k", rows), t[f"{prefix}self_attn.k_norm.weight"]), positions)
        k, v = (each.repeat_interleave(2, dim=1) for each in (k, heads("v", rows)))
        scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
        if self.causal:
            behind = torch.ones(len(x), len(rows)).triu(len(context) + 1).bool()
            scores = scores.masked_fill(behind, float("-inf"))
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(len(x), -1)
        x = x + linear(attended, t[f"{prefix}self_attn.o_proj.weight"])
        return x + mlp(t, prefix, norm(x, t[f"{prefix}post_attention_layernorm.weight"]))
