"""Texts that are written through a swarm are those of the target in this process."""

import pytest
import torch

from helpers.swarm_in_thread import ThreadedSwarm
from swarm.client.sync import BlockingClient
from swarm.distill.author import SwarmAuthor
from swarm.distill.settings import Writing
from swarm.distill.target import LocalTarget
from swarm.model.checkpoint import Checkpoint

WRITING = Writing(max_new_tokens=8)


@pytest.mark.timeout(300)
def test_a_swarm_writes_the_same_texts_with_the_same_states(threaded: ThreadedSwarm) -> None:
    checkpoint = Checkpoint.open(threaded.model)
    tokenizer = checkpoint.tokenizer()
    prompts = [tokenizer(text).input_ids for text in ("Problem: Tom has 3", "Problem: Mia")]
    counted: list[int] = []
    with BlockingClient(threaded.model, network=threaded.network, head="local") as client:
        texts = list(SwarmAuthor(client, WRITING).write(prompts, counted.append))
    local = LocalTarget.load(threaded.model, checkpoint, "cpu", WRITING)
    expected = {text.prompt: text for text in local.write(prompts, lambda tokens: None)}
    assert sum(counted) == sum(text.written for text in texts)
    for text in texts:
        same = expected[text.prompt]
        assert torch.equal(text.tokens, same.tokens)
        torch.testing.assert_close(text.states.float(), same.states.float(), atol=0.02, rtol=0.02)
