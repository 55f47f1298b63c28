"""Block heads: DFlash (arXiv 2602.06036) and DSpark (DeepSeek's DeepSpec): a block in one pass.

A block begins with the *anchor*, the last token before which the target's states are known; what is
not known yet of the tokens behind it is masked. All tokens of a block see each other, and the
context: features of the positions before the anchor, each made of outputs of some layers of the
target. Every layer makes keys and values of the features themselves. Slot k of a block stands for
position ``anchor + k``; it predicts the token there (DFlash), or the one behind it (DSpark, which
so predicts from the anchor on). DSpark adds a bias that depends on the token before.

Tensors, perhaps behind ``model.``::

    fc.weight [hidden, taps * hidden], hidden_norm.weight, layers.N.* as in Qwen3, norm.weight
    embed_tokens.weight and lm_head.weight; else the target's are used
    *markov_w1.weight [vocabulary, rank], *markov_w2.weight [rows, rank]
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
    apply_rotary_pos_emb,
)

from swarm.model.forward_watch import ForwardWatch, watched

MARKOV_IN = "markov_w1.weight"
MARKOV_OUT = "markov_w2.weight"


@dataclass(frozen=True)
class BlockWiring:
    """What no tensor's shape shows.

    Attributes:
        size: tokens of a block.
        mask_token: stands for a token that is not known.
        from_anchor: a slot predicts the token behind it; else its own, which is masked.
        causal: a token does not see those behind it.
        causal_window: so it is in layers whose attention slides.
    """

    size: int
    mask_token: int
    from_anchor: bool
    causal: bool = False
    causal_window: bool = False


class ContextCache:
    """Keys and values of the context in all layers, and the positions that they belong to."""

    def __init__(self, layers: int, device: torch.device) -> None:
        self.positions = torch.empty(0, dtype=torch.long, device=device)
        self._rows = 0
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Add rows ``[kv heads, n, head dim]`` to one layer; `placed` makes them count."""
        self._keys[layer] = _appended(self._keys[layer], self._rows, keys)
        self._values[layer] = _appended(self._values[layer], self._rows, values)

    def placed(self, positions: Tensor) -> None:
        """Note the positions of the rows that every layer was given."""
        self.positions = torch.cat((self.positions, positions))
        self._rows = len(self.positions)

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return all keys and values of a layer, ``[kv heads, rows, head dim]``."""
        keys, values = self._keys[layer], self._values[layer]
        assert keys is not None
        assert values is not None
        return keys[:, : self._rows], values[:, : self._rows]


class BlockHead(nn.Module):
    """A block head. Parameters are named as they are published.

    Args:
        config: of its layers.
        width: of all tapped outputs side by side.
        markov_rank: of the bias that depends on the token before; 0 for none.
        vocabulary: how many tokens the bias knows.

    Attributes:
        watch: is told of each forward, if there is one.
    """

    def __init__(
        self,
        config: Qwen3Config,
        wiring: BlockWiring,
        width: int,
        *,
        markov_rank: int = 0,
        vocabulary: int = 0,
    ) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.config = config
        self.wiring = wiring
        self.fc = nn.Linear(width, hidden, bias=False)
        self.hidden_norm = Qwen3RMSNorm(hidden, eps=config.rms_norm_eps)
        self.layers = nn.ModuleList(
            Qwen3DecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = Qwen3RMSNorm(hidden, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config)
        self.lm_head: nn.Module = nn.Identity()
        self.markov_w1 = nn.Embedding(vocabulary, markov_rank) if markov_rank else None
        self.markov_w2: nn.Module | None = None
        self.watch: ForwardWatch | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = self.norm.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        dtype: torch.dtype = self.norm.weight.dtype
        return dtype

    def add_context(self, cache: ContextCache, outputs: Tensor, positions: Tensor) -> None:
        """Read outputs of the target ``[n, taps, width]`` at positions ``[n]`` into the cache."""
        features = self.hidden_norm(self.fc(outputs.flatten(-2)))
        turn = self.rotary_emb(features[None], positions[None])
        for index, layer in enumerate(self.layers):
            cache.append(index, *self._keys_values(layer.self_attn, features, turn))
        cache.placed(positions)

    def forward(self, embedded: Tensor, anchor: int, cache: ContextCache) -> Tensor:
        """Return the states of blocks that begin at the same position.

        Args:
            embedded: ``[blocks, size, hidden]``, the embeddings of their tokens and masks.
            anchor: the position; of the context, they see what lies before it.

        Returns:
            ``[blocks, size, hidden]``, what the LM head reads.
        """
        blocks, size, hidden = embedded.shape
        offsets = torch.arange(size, device=self.device)
        positions = (anchor + offsets).repeat(blocks)
        turn = self.rotary_emb(embedded, positions[None])
        block = torch.arange(blocks, device=self.device).repeat_interleave(size)
        seen = torch.cat(
            (
                (cache.positions < anchor).expand(len(block), -1),
                block[:, None] == block[None, :],
            ),
            dim=1,
        )
        apart = positions[:, None] - torch.cat((cache.positions, positions))[None, :]
        states = embedded.reshape(-1, hidden)
        with watched(self.watch):
            for index, layer in enumerate(self.layers):
                mask = self._mask(layer, seen, apart)
                states = self._layer(layer, states, turn, cache.of(index), mask)
        normed: Tensor = self.norm(states)
        return normed.view(blocks, size, hidden)

    def logits(self, states: Tensor, before: Tensor) -> Tensor:
        """Return predictions ``[n, rows]`` from states ``[n, hidden]``.

        Args:
            before: ``[n]``, the token before each that is predicted.
        """
        logits: Tensor = self.lm_head(states)
        if self.markov_w1 is not None and self.markov_w2 is not None:
            logits = logits + self.markov_w2(self.markov_w1(before))
        return logits

    def run_once(self) -> None:
        """Predict a block of zeros behind a context of one position."""
        how: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        position = torch.zeros(1, dtype=torch.long, device=self.device)
        cache = ContextCache(len(self.layers), self.device)
        self.add_context(cache, torch.zeros(1, 1, self.fc.in_features, **how), position)
        block = torch.zeros(1, self.wiring.size, self.config.hidden_size, **how)
        states = self(block, 1, cache)[0]
        self.logits(states, position.expand(len(states)))

    def _mask(self, layer: Any, seen: Tensor, apart: Tensor) -> Tensor:
        window: int | None = layer.self_attn.sliding_window
        wiring = self.wiring
        if window is not None:
            seen = seen & (apart.abs() < window)
        if wiring.causal or (window is not None and wiring.causal_window):
            seen = seen & (apart >= 0)
        return seen

    def _layer(
        self,
        layer: Any,
        states: Tensor,
        turn: tuple[Tensor, Tensor],
        context: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> Tensor:
        attention = layer.self_attn
        normed = layer.input_layernorm(states)
        keys, values = self._keys_values(attention, normed, turn)
        query = attention.q_norm(_in_heads(attention.q_proj(normed), attention.head_dim))
        query, _ = apply_rotary_pos_emb(query[None], query[None], *turn)
        attended = scaled_dot_product_attention(
            query,
            torch.cat((context[0], keys), dim=1)[None],
            torch.cat((context[1], values), dim=1)[None],
            attn_mask=mask,
            scale=attention.scaling,
            enable_gqa=True,
        )
        states = states + attention.o_proj(attended[0].transpose(0, 1).flatten(-2))
        output: Tensor = states + layer.mlp(layer.post_attention_layernorm(states))
        return output

    def _keys_values(
        self, attention: Any, inputs: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        keys = attention.k_norm(_in_heads(attention.k_proj(inputs), attention.head_dim))
        _, turned = apply_rotary_pos_emb(keys[None], keys[None], *turn)
        return turned[0], _in_heads(attention.v_proj(inputs), attention.head_dim)


def _in_heads(rows: Tensor, head_dim: int) -> Tensor:
    """Turn ``[n, heads * head dim]`` into ``[heads, n, head dim]``."""
    return rows.view(len(rows), -1, head_dim).transpose(0, 1)


def _appended(held: Tensor | None, rows: int, new: Tensor) -> Tensor:
    """Return a tensor whose rows from ``rows`` on are ``new``, with room for some more."""
    end = rows + new.shape[1]
    if held is None or held.shape[1] < end:
        grown = new.new_empty((new.shape[0], max(64, 2 * end), new.shape[2]))
        if held is not None:
            grown[:, :rows] = held[:, :rows]
        held = grown
    held[:, rows:end] = new
    return held
