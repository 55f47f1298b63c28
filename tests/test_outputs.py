"""The result of a generation is plain data, as the SDK and ``--json`` promise."""

import json
from dataclasses import replace

import pytest
import torch

from helpers.text_stats import FACTS
from swarm.client.meter import Meter
from swarm.decoding.counts import Counts
from swarm.outputs import Generation, Measured, Piece, RouteStop


@pytest.fixture
def stats():
    meter = Meter(clock=iter((0.0, 0.5)).__next__)
    meter.start()
    meter.loop(Measured(500.0, (50.0,)), 2)
    return meter.stats(
        Counts(loops=1, drafted=1, accepted=1),
        replace(FACTS, prompt_tokens=5, bytes_sent=70, bytes_received=90, finish_reason="stop"),
    )


def test_a_generation_is_plain_data_for_json(stats):
    generation = Generation("ab", (7, 8), (RouteStop("peer", (0, 8), 1.5),), stats)
    said = json.loads(json.dumps(generation.as_dict()))
    assert set(said) == {"text", "token_ids", "route", "stats"}
    assert generation.as_dict(explain=True)["pieces"] == ()
    assert (said["text"], said["token_ids"]) == ("ab", [7, 8])
    assert said["route"] == [{"peer_id": "peer", "layers": [0, 8], "rtt_ms": 1.5}]
    promised = {
        *(
            "prompt_tokens",
            "new_tokens",
            "seconds",
            "tokens_per_second",
            "time_to_first_token_ms",
            "loops",
            "loop_ms",
        ),
        *("drafted_tokens", "accepted_tokens", "draft_acceptance_rate", "mean_acceptance_length"),
        *("bytes_sent", "bytes_received", "verification", "finish_reason"),
    }
    assert promised <= set(said["stats"])


def test_plain_data_has_no_tensors(stats):
    piece = Piece(5, "five", "target", logits=torch.zeros(9), hidden_state=torch.zeros(3))
    generation = Generation("five", (5,), (), stats, (piece, piece))
    assert "pieces" not in generation.as_dict()
    told = generation.as_dict(explain=True)
    assert [each["token_id"] for each in told["pieces"]] == [5, 5]
    assert not {"logits", "hidden_state"} & set(told["pieces"][0])
    assert json.dumps(told)
