"""Reading a text over real peers gives what the whole model says of it, also when a peer fails
meanwhile."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.loopback import soon
from helpers.models import LAYERS, VOCAB
from helpers.swarm_in_process import STAGES, Material, Swarm, swarm_of
from swarm.client.scoring import TRIES, Scorer
from swarm.errors import ChainBroken, MissingLayers, PromptTooLong, RequestError
from swarm.wire.tensors import MAX_FRAME_TOKENS

TEXT = [
    int(token)
    for token in torch.randint(3, VOCAB, (200,), generator=torch.Generator().manual_seed(3))
]


def reader(swarm: Swarm) -> Scorer:
    return Scorer(swarm._models, swarm._threads, swarm.router)


@pytest.fixture(scope="module")
def whole(material: Material):
    """Logits and last hidden states of the whole model."""
    model = AutoModelForCausalLM.from_pretrained(
        material.checkpoint._source.path, dtype=torch.float32
    )
    with torch.inference_mode():
        output = model(torch.tensor([TEXT]), output_hidden_states=True)
    return output.logits[0], output.hidden_states[-1][0]


async def test_it_is_what_the_whole_model_says(make: Callable[[], Swarm], whole):
    async with swarm_of(make, *STAGES) as swarm:
        reading = await soon(reader(swarm).read(TEXT))
    logits, hidden_states = whole
    torch.testing.assert_close(reading.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reading.hidden_states, hidden_states, atol=1e-4, rtol=1e-4)


async def test_of_some_tokens_alone_logits_are_computed(make: Callable[[], Swarm], whole):
    async with swarm_of(make, (0, LAYERS)) as swarm:
        reading = await soon(reader(swarm).read(TEXT, logits_to_keep=3))
    assert len(reading.hidden_states) == len(TEXT)
    torch.testing.assert_close(reading.logits, whole[0][-3:], atol=1e-4, rtol=1e-4)


async def test_scores_are_the_log_probabilities_of_the_whole_model(
    make: Callable[[], Swarm], whole, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("swarm.client.scoring.MAX_FRAME_TOKENS", 64)
    async with swarm_of(make, *STAGES) as swarm:
        pieces = await soon(reader(swarm).score(TEXT, likely=3))
    expected = whole[0].log_softmax(-1)
    assert [piece.token_id for piece in pieces] == TEXT
    assert pieces[0].logprob is None
    for place, piece in enumerate(pieces[1:]):
        assert piece.logprob == pytest.approx(float(expected[place, piece.token_id]), abs=1e-4)
        likeliest = expected[place].topk(3)
        assert [each.logprob for each in piece.likely] == pytest.approx(
            likeliest.values.tolist(), abs=1e-4
        )


async def test_a_text_longer_than_a_frame_travels_in_chunks(
    make: Callable[[], Swarm], whole, monkeypatch: pytest.MonkeyPatch
):
    assert len(TEXT) < MAX_FRAME_TOKENS  # one frame would do
    monkeypatch.setattr("swarm.client.scoring.MAX_FRAME_TOKENS", 32)
    async with swarm_of(make, *STAGES) as swarm:
        reading = await soon(reader(swarm).read(TEXT))
        assert max(map(max, swarm.up[0].span.batches)) < len(TEXT)
    torch.testing.assert_close(reading.logits, whole[0], atol=1e-4, rtol=1e-4)


async def test_another_chain_is_taken_when_a_peer_fails(make: Callable[[], Swarm], whole):
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        await soon(reader(swarm).read(TEXT[:5]))
        first = {stage.peer_id for stage in swarm.router._last.stages}
        broken = next(peer for peer in swarm.up if peer.id in first)
        broken.budget.reserve = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of order"))
        reading = await soon(reader(swarm).read(TEXT))
        assert broken.id not in {stage.peer_id for stage in swarm.router._last.stages}
        del broken.budget.reserve
    torch.testing.assert_close(reading.logits, whole[0], atol=1e-4, rtol=1e-4)


async def test_where_nobody_serves_the_layers_that_is_said(make: Callable[[], Swarm]):
    async with swarm_of(make, (0, 1)) as swarm:
        with pytest.raises(MissingLayers, match=f"no peer serves layers 1:{LAYERS}"):
            await soon(reader(swarm).read(TEXT))


@pytest.mark.parametrize(
    ("text", "error"),
    [([], RequestError), ([VOCAB], RequestError), ([5] * 257, PromptTooLong)],
    ids=str,
)
async def test_a_text_that_the_model_cannot_take_is_refused(text, error, make: Callable[[], Swarm]):
    async with swarm_of(make) as swarm:
        with pytest.raises(error):
            await reader(swarm).read(text)


async def test_it_is_not_tried_for_ever(make: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch):
    tried = []

    async def fails(self, chain, tokens):
        tried.append([link.peer_id for link in chain])
        raise ChainBroken(chain[0].peer_id, chain[0].layers, "it does not want to")

    monkeypatch.setattr(Scorer, "_over", fails)
    async with swarm_of(make, *[(0, LAYERS)] * (TRIES + 1)) as swarm:
        with pytest.raises(ChainBroken, match="it does not want to"):
            await soon(reader(swarm).read(TEXT))
    assert len({*map(tuple, tried)}) == len(tried) == TRIES
