"""The target in this process writes and reads as a chain of peers does."""

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM

from swarm.distill.settings import Writing
from swarm.distill.target import LocalTarget
from swarm.distill.texts import WrittenText
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16, 17, 18]]
NEW = 12


@pytest.fixture
def checkpoint(target: str) -> Checkpoint:
    return Checkpoint.open(target)


@pytest.fixture
def local(target: str, checkpoint: Checkpoint) -> LocalTarget:
    return LocalTarget.load(target, checkpoint, "cpu", Writing(max_new_tokens=NEW))


def greedy(target: str, prompt: list[int], ends: frozenset[int]) -> Iterator[int]:
    """What the model itself would write, one token after the other, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    ids = list(prompt)
    for _ in range(NEW):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        yield ids[-1]
        if ids[-1] in ends:
            return


def test_texts_side_by_side_are_those_of_each_alone(
    target: str, checkpoint: Checkpoint, local: LocalTarget
) -> None:
    counted: list[int] = []
    texts = local.continued(PROMPTS, counted.append)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        assert text.prompt == len(prompt)
        expected = [*prompt, *greedy(target, prompt, checkpoint.eos_token_ids)]
        assert list(text.tokens) == expected
    assert sum(counted) == sum(len(text.tokens) - text.prompt for text in texts)


def test_a_text_that_has_ended_leaves_the_others_as_they_are(
    target: str, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = list(greedy(target, PROMPTS[0], frozenset()))
    other = list(greedy(target, PROMPTS[1], frozenset()))
    end = next(token for token in alone[1:] if token not in other)
    monkeypatch.setitem(checkpoint.__dict__, "eos_token_ids", frozenset({end}))
    local = LocalTarget.load(target, checkpoint, "cpu", Writing(max_new_tokens=NEW))
    first, second = local.continued(PROMPTS[:2])
    assert list(first.tokens[3:]) == alone[: alone.index(end) + 1]
    assert list(second.tokens[6:]) == other


def test_its_states_are_the_raw_outputs_that_a_chain_answers_with(
    checkpoint: Checkpoint, local: LocalTarget
) -> None:
    texts = [WrittenText(tuple(range(5, 5 + size)), 2) for size in (9, 4, 13)]
    span = Span.load(checkpoint, 0, checkpoint.num_layers)
    for text in local.read(texts):
        [expected] = span.forward([Work.behind(span.new_cache(), text.tokens)])
        torch.testing.assert_close(text.states.float(), expected.float(), atol=2e-3, rtol=2e-3)


def test_sampling_draws_other_texts_with_another_seed(target: str, checkpoint: Checkpoint) -> None:
    texts = []
    for seed in (1, 1, 2):
        writing = Writing(max_new_tokens=NEW, temperature=1.0, seed=seed)
        texts.append(LocalTarget.load(target, checkpoint, "cpu", writing).continued(PROMPTS))
    assert texts[0] == texts[1] != texts[2]
