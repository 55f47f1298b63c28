"""A shape that is small enough for tests."""

from swarm.shapes.catalogue import DraftShape, HeadDraftShape, Layer, Shape

TINY = Shape(
    "tiny",
    layers=4,
    hidden_size=64,
    vocab_size=512,
    layer=Layer(numel=200_000_000),  # half a millisecond
    draft_head=HeadDraftShape(heads=4, kv_heads=2, head_dim=16, rows=128),
    peers=2,
    draft=DraftShape(hidden_size=32, layers=2, inner=48, heads=4, kv_heads=2, head_dim=8),
)
