"""Plain and speculative decoding of one prompt, set side by side."""

import dataclasses
import json

import pytest

from swarm.demo.compare import Comparison, alpha, compare, token_ms
from swarm.results import Generation, Piece, Stats

PLAIN = Stats(
    prompt_tokens=5,
    new_tokens=20,
    seconds=2.0,
    tokens_per_second=10.0,
    time_to_first_token_ms=100.0,
    loops=20,
    loop_ms=100.0,
    stage_compute_ms=(1.0, 2.0),
    drafted_tokens=0,
    accepted_tokens=0,
    rejections=0,
    draft_acceptance_rate=None,
    mean_acceptance_length=1.0,
    draft_ms_per_token=None,
    bytes_sent=100,
    bytes_received=100,
    verification="exact",
    key_tokens=0,
    relaxed_tokens=0,
    deficit_nats=0.0,
    acceptance_by_position=(),
    acceptance_histogram=(),
    rule="strict",
    draft_error=None,
    seed=None,
    finish_reason="length",
)
SPECULATIVE = dataclasses.replace(
    PLAIN,
    seconds=0.5,
    tokens_per_second=40.0,
    loops=4,
    stage_compute_ms=(18.0, 27.0),
    drafted_tokens=32,
    accepted_tokens=18,
    rejections=2,
    draft_acceptance_rate=18 / 32,
    mean_acceptance_length=5.0,
    draft_ms_per_token=2.0,
)


def generation(stats, *tokens):
    return Generation("".join(map(str, tokens)), tokens, (), stats)


class Client:
    """Answers by what the test prepared: window 0 plainly, any other speculatively."""

    def __init__(self):
        self.asked = []

    def stream(self, prompt, **settings):
        self.asked.append((prompt, settings))
        return Stream(generation(SPECULATIVE if settings["window"] else PLAIN, 1, 2))


class Stream:
    def __init__(self, result):
        self.result = result

    async def __aiter__(self):
        for token in self.result.token_ids:
            yield Piece(token, str(token), "target")


async def test_the_prompt_is_decoded_plainly_and_then_speculatively():
    client, shown = Client(), []

    async def show(name, piece):
        shown.append((name, piece.token_id))

    comparison = await compare(client, "hello", window=8, max_new_tokens=20, show=show)
    assert client.asked == [("hello", {"window": w, "max_new_tokens": 20}) for w in (0, 8)]
    assert shown == [("plain", 1), ("plain", 2), ("speculative", 1), ("speculative", 2)]
    assert comparison == Comparison("hello", generation(PLAIN, 1, 2), generation(SPECULATIVE, 1, 2))


def test_alpha_is_the_chance_of_a_token_whose_predecessors_were_kept():
    # Not 18 / 32: tokens behind a miss were never judged.
    assert alpha(SPECULATIVE) == 0.9
    assert alpha(PLAIN) == 0.0


def test_tau_is_the_slower_of_drafting_and_the_slowest_stage():
    assert token_ms(SPECULATIVE) == 3.0  # 27 ms for windows of 8 and the token before
    assert token_ms(dataclasses.replace(SPECULATIVE, draft_ms_per_token=4.0)) == 4.0
    assert token_ms(PLAIN) == 2.0


def test_speedup_and_its_bound():
    comparison = Comparison("hello", generation(PLAIN, 1), generation(SPECULATIVE, 1))
    assert comparison.speedup == 4.0
    assert comparison.bound == pytest.approx(1 / (0.1 + 0.9 * 3.0 / 100.0))


@pytest.mark.parametrize(("tokens", "identical"), [((1, 2), True), ((1, 3), False)])
def test_as_json_it_holds_both_generations_and_whether_they_agree(tokens, identical):
    comparison = Comparison("hello", generation(PLAIN, 1, 2), generation(SPECULATIVE, *tokens))
    said = json.loads(json.dumps(comparison.as_dict()))
    assert (said["prompt"], said["speedup"], said["identical"]) == ("hello", 4.0, identical)
    assert said["speedup_bound"] == comparison.bound
    assert said["plain"] == json.loads(json.dumps(comparison.plain.as_dict()))
    assert said["speculative"]["token_ids"] == list(tokens)
