"""A draft head in EAGLE's form, as a module that learns.

A slot ``i`` of a text reads the embedding of its token ``i + 1`` and the *feature* of token ``i``:
the target's last state behind its final norm, which enters its LM head. The slot's output is a
guess at the feature of token ``i + 1``. So the target's LM head makes of it the logits of token
``i + 2``, and where the target has not answered yet, the next slot takes it as the feature (Li et
al. 2024, "EAGLE", arXiv 2401.15077). Slot ``i`` stands at the position ``i``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from swarm.model.checkpoint import Checkpoint

INIT_STD = 0.02
LEAST_CONTEXT = 2048  # where a target says none


@dataclass(frozen=True)
class HeadShape:
    """The sizes of a head.

    Attributes:
        hidden: of the target's states.
        intermediate: of the MLP.
        heads: of the attention.
        kv_heads: of its keys and values; divides ``heads``.
        head_dim: numbers in each.
        rope_theta: the base of the rotary embedding.
        eps: of the norm before the MLP.
        context: the positions that it is made for.
    """

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    eps: float = 1e-6
    context: int = 2048

    @property
    def weights(self) -> int:
        """The weights of the matrices, without LM head and embedding."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return 2 * self.hidden**2 + attention + 3 * self.hidden * self.intermediate


def shape_for(checkpoint: Checkpoint) -> HeadShape:
    """Return the shape of a head for a target: its heads, and an MLP as narrow as pays."""
    config = checkpoint.config
    hidden = checkpoint.hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    heads = max(1, hidden // head_dim)
    group = config.num_attention_heads // (
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    )
    return HeadShape(
        hidden=hidden,
        intermediate=hidden,
        heads=heads,
        kv_heads=heads // group if heads % group == 0 else heads,
        head_dim=head_dim,
        context=checkpoint.max_positions or LEAST_CONTEXT,
    )


class _Attention(nn.Module):
    """The projections of an attention."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        wide = shape.heads * shape.head_dim
        narrow = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, wide, bias=False)
        self.k_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(wide, shape.hidden, bias=False)


class _Mlp(nn.Module):
    """A gated MLP."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class _Layer(nn.Module):
    """A layer of Llama without its first norm, as EAGLE has it."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.eps)
        self.mlp = _Mlp(shape)


@dataclass(frozen=True, eq=False)
class Projected:
    """Slots on their way into the attention.

    Attributes:
        x: ``[texts, slots, hidden]``, what goes on around the attention.
        q: ``[texts, heads, slots, head_dim]``.
        k, v: ``[texts, heads, slots, head_dim]``, those of a group repeated.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


class TrainableHead(nn.Module):
    """The head in units of its own: features and embeddings are scaled to a mean square of one.

    So that one learning rate suits every target. `swarm.distill.layout` folds the scales into the
    weights when it saves the head.

    Args:
        embedding_scale: root mean square of the target's embedding.
        feature_scale: root mean square of the target's features.
    """

    def __init__(self, shape: HeadShape, embedding_scale: float, feature_scale: float) -> None:
        super().__init__()
        self.shape = shape
        self.embedding_scale = embedding_scale
        self.feature_scale = feature_scale
        self.fc = nn.Linear(2 * shape.hidden, shape.hidden, bias=False)
        self.layers = nn.ModuleList([_Layer(shape)])
        self._begin()

    def _begin(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=INIT_STD)
        layer = self.layer
        # At first a slot's output is little more than what it read.
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
        nn.init.normal_(self.fc.weight, std=(2 * self.shape.hidden) ** -0.5)

    @property
    def layer(self) -> _Layer:
        layer = self.layers[0]
        assert isinstance(layer, _Layer)
        return layer

    def project(self, embedded: Tensor, features: Tensor, positions: Tensor) -> Projected:
        """Read slots.

        Args:
            embedded: ``[texts, slots, hidden]``, the embedding of each slot's token.
            features: the same shape, as the target or `attend` gives them.
            positions: ``[texts, slots]`` or ``[slots]``.
        """
        shape = self.shape
        scaled = (embedded / self.embedding_scale, features / self.feature_scale)
        x = self.fc(torch.cat(scaled, -1))
        attention = self.layer.self_attn

        def split(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], -1, shape.head_dim).transpose(-2, -3)

        cos, sin = rotation(positions, shape.head_dim, shape.rope_theta)
        q = rotated(split(attention.q_proj(x)), cos, sin)
        k = rotated(split(attention.k_proj(x)), cos, sin)
        v = split(attention.v_proj(x))
        repeats = shape.heads // shape.kv_heads
        if repeats > 1:
            k = k.repeat_interleave(repeats, -3)
            v = v.repeat_interleave(repeats, -3)
        return Projected(x, q, k, v)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the guessed features ``[texts, slots, hidden]``.

        Args:
            x: `Projected.x`.
            attended: ``[texts, heads, slots, head_dim]``.
        """
        layer = self.layer
        x = x + layer.self_attn.o_proj(attended.transpose(-2, -3).flatten(-2))
        x = x + layer.mlp(layer.post_attention_layernorm(x.float()))
        return x * self.feature_scale

    def forward(self, embedded: Tensor, features: Tensor) -> tuple[Tensor, Projected]:
        """Read whole texts whose features are all known; each slot sees those before it.

        Returns:
            The guessed features ``[texts, slots, hidden]``, and the slots' keys and values.
        """
        positions = torch.arange(embedded.shape[1], device=embedded.device)
        slots = self.project(embedded, features, positions)
        attended = scaled_dot_product_attention(slots.q, slots.k, slots.v, is_causal=True)
        return self.finish(slots.x, attended), slots


def rotation(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary embedding, each ``[..., 1, slots, head_dim]``.

    (Su et al. 2021, arXiv 2104.09864, with the halves of transformers' Llama.)

    Args:
        positions: ``[..., slots]``.
    """
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * theta ** (-steps / head_dim)
    both = torch.cat((angles, angles), -1)
    if positions.ndim > 1:
        both = both.unsqueeze(-3)  # the same for all heads
    return both.cos(), both.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys ``[..., heads, slots, head_dim]`` by their positions."""
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)
