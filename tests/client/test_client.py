"""The SDK's two faces against a real swarm in this process."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import swarm
from helpers.swarm_in_thread import ThreadedSwarm
from swarm import (
    BatchFailed,
    BlockingClient,
    PromptTooLong,
    RequestError,
    SwarmClient,
)
from swarm.demo import DRAFT, TARGET, locate

PROMPTS = ["Problem: Mia has 12 coins.", "Problem: Amir has", "Problem: On Monday, Olga"]
NEW = 12


@pytest.fixture(scope="module")
def blocking(threaded: ThreadedSwarm):
    with BlockingClient(locate(TARGET), draft=locate(DRAFT), network=threaded.network) as client:
        yield client


async def test_many_prompts_give_what_each_gives_alone(threaded: ThreadedSwarm):
    async with SwarmClient(locate(TARGET), draft=locate(DRAFT), network=threaded.network) as client:
        alone = [await client.generate(prompt, max_new_tokens=NEW) for prompt in PROMPTS]
        together = await client.generate_many(PROMPTS, max_new_tokens=NEW)
        assert [each.token_ids for each in together] == [each.token_ids for each in alone]
        reading = await client.read(PROMPTS[0])
        assert int(reading.logits[-1].argmax()) == alone[0].token_ids[0]


async def test_what_a_draft_has_learned_comes_back_at_the_next_start(
    threaded: ThreadedSwarm, tmp_path: Path
):
    taught = []
    for new_tokens in (NEW, 1):
        async with SwarmClient(
            locate(TARGET), draft=locate(DRAFT), network=threaded.network, cache=tmp_path
        ) as client:
            assert client.models.corrections is not None
            taught.append(client.models.corrections.of("").most_moved(10))
            for prompt in PROMPTS:
                await client.generate(prompt, max_new_tokens=new_tokens)
    assert taught[0] == ()
    assert taught[1]


def test_equal_prompts_differ_and_come_again_with_the_seed(blocking: BlockingClient):
    def write(**options) -> list[str]:
        return [
            each.text
            for each in blocking.generate_many([PROMPTS[0]] * 3, max_new_tokens=NEW, **options)
        ]

    texts = write(temperature=1.0, seed=5)
    assert len({*texts}) == 3
    assert write(temperature=1.0, seed=5) == texts
    assert (
        blocking.generate(PROMPTS[0], max_new_tokens=NEW, temperature=1.0, seed=6).text == texts[1]
    )


def test_a_prompt_that_cannot_be_continued_does_not_lose_the_others(blocking: BlockingClient):
    with pytest.raises(BatchFailed) as caught:
        blocking.generate_many([PROMPTS[0], [5] * 1024, PROMPTS[1]], max_new_tokens=NEW)
    assert [result is not None for result in caught.value.results] == [True, False, True]
    assert isinstance(caught.value.errors[1], PromptTooLong)


def test_wrong_options_are_said_before_anything_is_generated(blocking: BlockingClient):
    with pytest.raises(RequestError, match=r"^max_new_tokens = 0"):
        blocking.generate_many(PROMPTS, max_new_tokens=0)
    with pytest.raises(RequestError, match="give a list of prompts"):
        blocking.generate_many(PROMPTS[0])


def test_tensors_come_with_the_pieces_on_request(blocking: BlockingClient):
    model = blocking.client.models
    result = blocking.generate(
        PROMPTS[0], max_new_tokens=NEW, logits=True, hidden_states=True, repetition_penalty=1.3
    )
    for piece in result.pieces:
        assert piece.logits is not None
        assert piece.hidden_state is not None
        assert piece.logits.shape == (model.checkpoint.vocab_size,)
        assert piece.hidden_state.shape == (model.checkpoint.hidden_size,)
    reading = blocking.read([*model.tokenizer(PROMPTS[0]).input_ids, *result.token_ids[:-1]])
    for said, (logits, hidden) in zip(
        result.pieces,
        list(zip(reading.logits, reading.hidden_states, strict=True))[-NEW:],
        strict=True,
    ):
        assert (said.logits - logits).abs().max() < 1e-3
        assert (said.hidden_state - hidden).abs().max() < 1e-3
    assert not any(
        piece.logits is not None for piece in blocking.generate(PROMPTS[0], max_new_tokens=2).pieces
    )


def test_other_tokens_may_end_a_text(blocking: BlockingClient):
    first = blocking.generate(PROMPTS[0], max_new_tokens=NEW)
    ended = blocking.generate(PROMPTS[0], max_new_tokens=NEW, stop_token_ids=[first.token_ids[4]])
    assert ended.stats.finish_reason == "stop"
    assert ended.token_ids == first.token_ids[: first.token_ids.index(first.token_ids[4]) + 1]


def test_threads_share_a_client(blocking: BlockingClient):
    with ThreadPoolExecutor(3) as threads:
        texts = list(
            threads.map(lambda prompt: blocking.generate(prompt, max_new_tokens=NEW).text, PROMPTS)
        )
    assert texts == [each.text for each in blocking.generate_many(PROMPTS, max_new_tokens=NEW)]


def test_a_loop_that_is_left_early_ends_the_generation(blocking: BlockingClient):
    for piece in blocking.stream(PROMPTS[0], max_new_tokens=200):
        assert piece.token_id >= 0
        break
    assert blocking.generate(PROMPTS[0], max_new_tokens=2).stats.new_tokens == 2


async def test_who_has_not_entered_or_has_left_is_told(threaded: ThreadedSwarm):
    client = SwarmClient(locate(TARGET), network=threaded.network)

    async def ask_all() -> None:
        for ask in (
            lambda: client.models,
            lambda: client.compute,
            lambda: client.audits,
            lambda: client.stream("Problem"),
            lambda: client.chat_prompt([]),
        ):
            with pytest.raises(RuntimeError, match="`async with` block"):
                ask()
        for work in (client.look(), client.find_chain(), client.settle(1), client.read("Problem")):
            with pytest.raises(RuntimeError, match="`async with` block"):
                await work

    await ask_all()
    async with client:
        assert client.audits.texts == 0
    await ask_all()


def test_who_has_not_opened_a_blocking_client_is_told(threaded: ThreadedSwarm):
    client = BlockingClient(locate(TARGET), network=threaded.network)
    with pytest.raises(RuntimeError, match="the client is not open"):
        client.generate("Problem")
    client.close()


@pytest.mark.parametrize("name", swarm.__all__)
def test_every_public_name_is_there(name: str):
    """And it is defined in the module, or in a module of the package, that it is imported from."""
    thing = getattr(swarm, name)
    if home := swarm._HOME_OF.get(name):
        assert getattr(importlib.import_module(home), name) is thing
        assert f"{getattr(thing, '__module__', home)}.".startswith(f"{home}.")
    else:
        assert name in vars(swarm)
