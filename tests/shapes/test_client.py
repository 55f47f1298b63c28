"""A client of a shape has a lucky draft, and judges as before only if it is asked to."""

import pytest

from helpers.shapes import TINY
from swarm.config import Network
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.kernels.int8 import Plain
from swarm.shapes.bench import models_of
from swarm.shapes.client import ShapedClient
from swarm.shapes.drafting import LuckyModel
from swarm.shapes.script import Guesser, Odds

NETWORK = Network("test")


@pytest.mark.parametrize("as_before", [False, True])
def test_the_models_of_a_client(as_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Head.round  # which leaves a small head as it is
    monkeypatch.setattr(Head, "round", lambda head: rounds(head, Plain))
    with models_of(TINY, lambda _: None) as (folder, script):
        guesser = Guesser(script, Odds(), TINY.vocab_size)
        target, draft = str(folder / "target"), str(folder / "draft")
        client = ShapedClient(target, guesser, as_before=as_before, draft=draft, network=NETWORK)
        models = client._load(Checkpoint.open(target))
    assert isinstance(models.draft, LuckyModel)
    assert (models.own_head.rounded is None) == as_before
