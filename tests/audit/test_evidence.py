"""Evidence is a fair sample of a text, and the text is replayed as it was written."""

import random
from collections import Counter
from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.audit import evidence as module
from swarm.audit.evidence import MAX_SAMPLES, Evidence, Samples
from swarm.audit.replay import MOST_AT_ONCE, replay_windows
from swarm.routing.chain import Stage
from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import TokenTree


@dataclass
class Token:
    position: int
    kept: bool = False
    alive: bool = True


def finished(samples: Samples) -> Evidence | None:
    return samples.evidence(
        range(500), 5, [Stage("a", 0, 4)], {"a": "float32", "b": "bfloat16"}, 600
    )


def row(position: int) -> torch.Tensor:
    return torch.full((1, 3), float(position))


def test_only_what_became_part_of_the_text_is_kept() -> None:
    samples = Samples()
    tip, kept, lost, late = Token(4, kept=True), Token(5), Token(5), Token(6)
    samples.answered([tip, kept, lost, late], torch.cat([row(4), row(5), -row(5), row(6)]))
    kept.kept = True
    lost.alive = False
    samples.settle()
    samples.settle()
    late.kept = True
    late.alive = False
    samples.settle()
    found = finished(samples)
    assert found is not None
    assert (found.positions, found.hidden[:, 0].tolist()) == ((4, 5, 6), [4.0, 5.0, 6.0])
    assert (found.windows, found.gone, found.dtypes) == (1, {"b"}, {"float32", "bfloat16"})
    assert (found.replayed, found.peer_ids) == (tuple(range(7)), {"a", "b"})


def test_of_nothing_there_is_no_evidence() -> None:
    assert finished(Samples()) is None


def test_every_position_is_as_likely_to_be_kept() -> None:
    counts: Counter[int] = Counter()
    for seed in range(300):
        samples = Samples(random.Random(seed).randrange)
        for position in range(4 * MAX_SAMPLES):
            samples.answered([Token(position, kept=True)], row(position))
            samples.settle()
        found = finished(samples)
        assert found is not None
        assert found.hidden[:, 0].tolist() == list(found.positions)
        assert len(found.positions) == found.windows == MAX_SAMPLES
        counts.update(found.positions)
    assert 40 <= min(counts.values()) <= max(counts.values()) <= 115, "75 are expected"


def test_what_never_settles_is_bounded() -> None:
    samples = Samples()
    for position in range(2 * module.MAX_PENDING):
        samples.answered([Token(position)], row(position))
    assert len(samples._pending) == module.MAX_PENDING


def test_a_replay_asks_at_the_prompt_s_end_if_the_text_did() -> None:
    frames = list(replay_windows(list(range(620)), 600, random.Random(1), answered_from=500))
    asked = [(frame.tail, frame.features) for frame in frames if frame.position < 600]
    assert asked == [(0, 0), (12, 12), (88, 87)]
    assert not any(frame.features for frame in frames if frame.position >= 600)


@given(prompt=st.integers(1, 600), new=st.integers(0, 60), seed=st.integers(0, 1000))
def test_a_replay_tells_all_tokens_in_the_order_of_a_text(prompt: int, new: int, seed: int) -> None:
    tokens = list(range(prompt + new))
    frames = list(replay_windows(tokens, prompt, random.Random(seed)))
    assert [token for frame in frames for token in frame.tokens] == tokens
    assert sum(frame.tail for frame in frames) == new + 1
    assert all(
        len(frame.tokens) <= (MAX_FRAME_TOKENS if frame.position < prompt else MOST_AT_ONCE)
        for frame in frames
    )
    stream = TokenTree()
    for frame in frames:
        assert stream.admit(frame.epoch, frame.root, frame.first, len(frame.tokens), frame.parents)
