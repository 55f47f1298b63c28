"""One prompt decoded in several ways, set side by side."""

import dataclasses
import json

import pytest

from swarm.bench.compare import Comparison, compare, token_ms
from swarm.bench.ways import BRANCHES, PAPERS_WINDOW
from swarm.bench.ways import PLAIN as PLAINLY
from swarm.outputs import Generation, Piece, Stats

PLAIN = Stats(
    prompt_tokens=5,
    new_tokens=20,
    seconds=2.0,
    tokens_per_second=10.0,
    time_to_first_token_ms=100.0,
    loops=20,
    loop_ms=100.0,
    least_loop_ms=98.0,
    stage_compute_ms=(1.0, 2.0),
    stage_queue_ms=(0.0, 0.0),
    drafted_tokens=0,
    accepted_tokens=0,
    rejections=0,
    branch_tokens=0,
    draft_acceptance_rate=None,
    mean_acceptance_length=1.0,
    draft_ms_per_token=None,
    waits=20,
    frames=20,
    in_flight_mean=1.0,
    in_flight_max=1,
    flushes=0,
    wasted_tokens=0,
    positions_per_token=1.0,
    bound_share=None,
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
    failovers=(),
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
    rejections=3,
    branch_tokens=1,
    frames=4,
    positions_per_token=1.8,
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
        return Stream(generation(PLAIN if settings.get("window") == 0 else SPECULATIVE, 1, 2))


class Stream:
    def __init__(self, result):
        self.result = result

    async def __aiter__(self):
        for token in self.result.token_ids:
            yield Piece(token, str(token), "target")


WAYS = (PLAINLY, PAPERS_WINDOW, BRANCHES)
STREAMING = BRANCHES.name


def comparison(*tokens):
    generations = [
        generation(PLAIN, 1, 2),
        generation(SPECULATIVE, 1, 2),
        generation(SPECULATIVE, *tokens),
    ]
    return Comparison(
        "hello", {way.name: each for way, each in zip(WAYS, generations, strict=True)}
    )


async def test_the_prompt_is_decoded_in_one_way_after_the_other():
    client, shown = Client(), []

    async def show(name, piece):
        shown.append((name, piece.token_id))

    assert await compare(
        client, "hello", WAYS, max_new_tokens=20, plain_tokens=9, show=show
    ) == comparison(1, 2)
    assert client.asked == [
        # with an owner of its own, no way copies what the one before has written
        ("hello", {"owner": f"way {number}", **way.options, "max_new_tokens": most})
        for number, (way, most) in enumerate(zip(WAYS, (9, 20, 20), strict=True))
    ]
    assert shown == [(way.name, token) for way in WAYS for token in (1, 2)]


def test_tau_is_the_slower_of_drafting_and_the_slowest_stage():
    assert token_ms(SPECULATIVE) == 3.0  # 27 ms for frames of nine tokens
    assert token_ms(dataclasses.replace(SPECULATIVE, draft_ms_per_token=4.0)) == 4.0
    assert token_ms(PLAIN) == 2.0


def test_speedup_and_its_bound():
    """Two misses without a branch: three loops of 100 ms, and 3 ms for each of the 17 others."""
    both = comparison(1, 2)
    assert both.speedup(STREAMING) == 4.0
    assert both.bound_share(STREAMING) == pytest.approx((3 * 100 + 17 * 3) / 500)
    assert (both.speedup("plain"), both.bound_share("plain")) == (1.0, None)


@pytest.mark.parametrize(
    ("tokens", "identical"), [((1, 2), True), ((1, 2, 7), True), ((1,), True), ((1, 3), False)]
)
def test_as_json_it_holds_all_generations_and_whether_they_agree(tokens, identical):
    both = comparison(*tokens)
    said = json.loads(json.dumps(both.as_dict()))
    assert (said["prompt"], said["identical"]) == ("hello", identical)
    assert list(said["ways"]) == [way.name for way in WAYS]
    streaming = said["ways"][STREAMING]
    assert (streaming["speedup"], streaming["token_ids"]) == (4.0, list(tokens))
    assert streaming["bound_share"] == both.bound_share(STREAMING)
