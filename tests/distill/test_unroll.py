"""What a slot of a rollout sees, by lag; and that rollouts give what reading slot by slot gives."""

import pytest
import torch
from torch import Tensor

from swarm.distill.trainable_head import HeadShape, TrainableHead
from swarm.distill.unroll import Rollouts, answered, sees_answered, sees_guessed, unroll

SHAPE = HeadShape(hidden=16, intermediate=24, heads=4, kv_heads=2, head_dim=4)
SLOTS = 9


@pytest.mark.parametrize(
    ("step", "lag", "last"),
    [(1, 8, 3), (8, 8, 3), (4, 4, 3), (5, 4, 4), (9, 4, 8), (1, 1, 3), (3, 1, 5)],
)
def test_answers_follow_at_their_lag_and_never_go_back(step: int, lag: int, last: int) -> None:
    assert answered(torch.tensor([[3]]), torch.tensor([[lag]]), step).item() == last


@pytest.mark.parametrize("lag", [1, 2, 3, 5])
def test_a_slot_sees_each_slot_up_to_itself_once(lag: int) -> None:
    anchors = torch.tensor([[0, 2, 4]])
    lags = torch.full_like(anchors, lag)
    for step in (1, 2, 3, 4):
        far = sees_answered(anchors, lags, step, SLOTS)[0, 0]
        near = sees_guessed(anchors, lags, step)[0, 0]
        for rollout, anchor in enumerate(anchors[0].tolist()):
            guessed = (anchor + 1 + near[rollout].nonzero()[:, 0]).tolist()
            seen = far[rollout].nonzero()[:, 0].tolist() + guessed
            assert seen == list(range(anchor + step + 1))


def naive(head: TrainableHead, embedded: Tensor, features: Tensor, last: int, slot: int) -> Tensor:
    """Read slots 0 to ``slot`` one after the other; those behind ``last`` by guesses."""
    mixed = features[:, : slot + 1].clone()
    guessed = features
    for at in range(last + 1, slot + 1):
        guessed, _ = head(embedded[:, :at], mixed[:, :at])
        mixed[:, at] = guessed[:, -1]
    guessed, _ = head(embedded[:, : slot + 1], mixed)
    return guessed[:, -1]


@pytest.mark.parametrize("anchor", [0, 3])
@torch.no_grad()
def test_a_rollout_gives_what_reading_slot_by_slot_gives(anchor: int) -> None:
    torch.manual_seed(1)
    head = TrainableHead(SHAPE, 0.5, 2.0)
    for parameter in head.parameters():
        parameter.normal_(std=0.3)
    embedded = torch.randn(2, SLOTS, SHAPE.hidden)
    features = torch.randn(2, SLOTS, SHAPE.hidden)
    guessed, slots = head(embedded, features)
    anchors = torch.tensor([[anchor], [anchor]])
    rollouts = Rollouts(anchors, torch.full_like(anchors, 5), 5)
    for step, states in enumerate(unroll(head, embedded, guessed, slots, rollouts), 1):
        expected = naive(head, embedded, features, anchor, anchor + step)
        torch.testing.assert_close(states[:, 0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_answers_that_follow_change_what_a_rollout_guesses() -> None:
    torch.manual_seed(1)
    head = TrainableHead(SHAPE, 1.0, 1.0)
    for parameter in head.parameters():
        parameter.normal_(std=0.3)
    embedded = torch.randn(1, SLOTS, SHAPE.hidden)
    features = torch.randn(1, SLOTS, SHAPE.hidden)
    guessed, slots = head(embedded, features)
    anchors = torch.tensor([[1, 1]])
    rollouts = Rollouts(anchors, torch.tensor([[6, 2]]), 6)
    steps = list(unroll(head, embedded, guessed, slots, rollouts))
    torch.testing.assert_close(steps[1][0, 0], steps[1][0, 1])  # both still see the anchor alone
    assert not torch.allclose(steps[3][0, 0], steps[3][0, 1])
