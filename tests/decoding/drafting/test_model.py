"""A drafter that keeps its cache says what one that reads everything again would say."""

import random

import pytest
import torch

from helpers.models import ARCHITECTURES, VOCAB, WINDOW
from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.model import ModelDrafter, common_prefix
from swarm.decoding.drafting.vocabulary import SameVocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping

SAME = SameVocabulary(VOCAB)
SAMPLED = Sampling(1.0, top_k=20, seed=3)


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma3_text"])
def model(request, tmp_path_factory):
    return ARCHITECTURES[request.param].save(tmp_path_factory.mktemp("draft"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("draft"))


def reread(model, sampling, sequence, count, shaping=NO_SHAPING):
    """Draft without any cache; returns tokens and their logits."""
    drafted, rows = [], []
    for _ in range(count):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*sequence, *drafted]]), use_cache=False).logits[
                0, -1:
            ]
        logits = shaping.apply(logits, [*sequence, *drafted])
        drafted += sampling.choose(logits, len(sequence) + len(drafted))
        rows += logits
    return drafted, rows


def tokens(drafted):
    return [guess.token for guess in drafted]


class EveryTokenIsTwo:
    """A vocabulary that the draft spells out at double length, behind an opening."""

    opening = (1,)

    def encode(self, sequence):
        return [half for token in sequence for half in (token, 3)]

    def project(self, logits):
        return logits


def tokens_read(model, work):
    """How many tokens the model reads while ``work`` is done, one entry a forward pass."""
    counts = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: counts.append(args[0].shape[-1])
    )
    try:
        work()
    finally:
        handle.remove()
    return counts


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_after_rollbacks_it_drafts_what_a_full_reading_drafts(model, sampling):
    rng = random.Random(5)
    drafter, sequence = (
        ModelDrafter(model, Chooser(sampling, SAME)),
        [rng.randrange(3, VOCAB) for _ in range(2 * WINDOW)],
    )
    for turn in range(12):
        count = rng.randint(1, 6)
        drafted = tokens(drafter.draft(sequence, count))
        assert drafted == reread(model, sampling, sequence, count)[0], f"turn {turn}"
        sequence = [*sequence, *drafted[: rng.randint(0, count)], rng.randrange(3, VOCAB)]


def test_it_may_be_asked_for_a_shorter_sequence_or_another_one(model):
    drafter = ModelDrafter(model, Chooser(Sampling(), SAME))
    long = list(range(3, 30))
    for sequence in (long, long[:9], long[:9], long[:10], [50, 51], [50], long):
        assert tokens(drafter.draft(sequence, 4)) == reread(model, Sampling(), sequence, 4)[0]


def test_every_guess_carries_the_logits_that_it_was_chosen_from(llama):
    shaping = Shaping(repetition_penalty=3.0, logit_bias=((9, 4.0), (31, -9.0)))
    drafted = ModelDrafter(llama, Chooser(SAMPLED, SAME, shaping)).draft([5, 6, 7], 6)
    expected, rows = reread(llama, SAMPLED, [5, 6, 7], 6, shaping)
    assert tokens(drafted) == expected
    assert expected != reread(llama, SAMPLED, [5, 6, 7], 6)[0]
    for guess, row in zip(drafted, rows, strict=True):
        assert guess.logits.shape == (VOCAB,)
        torch.testing.assert_close(guess.logits, row)


def test_it_reads_only_what_is_new(llama):
    drafter, prompt = ModelDrafter(llama, Chooser(Sampling(), SAME)), [5, 6, 7, 8, 9]
    drafted = []
    assert tokens_read(llama, lambda: drafted.extend(tokens(drafter.draft(prompt, 4)))) == [
        5,
        1,
        1,
        1,
    ]
    # All kept, and one token of the target's own behind them: the last draft was chosen, but not
    # read.
    assert tokens_read(llama, lambda: drafter.draft([*prompt, *drafted, 3], 2)) == [2, 1]
    # The second drafted token is corrected.
    assert tokens_read(
        llama, lambda: drafter.draft([*prompt, drafted[0], (drafted[1] + 1) % VOCAB], 1)
    ) == [1]


def test_it_stops_behind_a_stop_token(llama):
    free = tokens(ModelDrafter(llama, Chooser(SAMPLED, SAME)).draft([5, 6, 7], 8))
    stop = free[3]
    expected = free[: free.index(stop) + 1]
    stopping = ModelDrafter(llama, Chooser(SAMPLED, SAME, stop_ids=frozenset({stop})))
    assert tokens(stopping.draft([5, 6, 7], 8)) == expected


def test_nothing_asked_nothing_drafted(llama):
    drafter = ModelDrafter(llama, Chooser(Sampling(), SAME))
    assert tokens_read(llama, lambda: drafter.draft([5, 6, 7], 0)) == []
    assert drafter.draft([5, 6, 7], 0) == []


def test_padding_of_the_drafts_vocabulary_is_never_drafted(llama):
    drafted = ModelDrafter(llama, Chooser(Sampling(5.0), SameVocabulary(20))).draft([5, 6, 7], 40)
    assert max(tokens(drafted)) < 20


def test_tokens_that_the_draft_model_does_not_know_end_its_guessing(llama):
    drafter = ModelDrafter(llama, Chooser(Sampling(5.0), SameVocabulary(VOCAB + 30)))
    before = drafter.draft([5, 6, 7], 30)
    assert max(tokens(before)) < VOCAB
    assert all(guess.logits.shape == (VOCAB + 30,) for guess in before)
    assert drafter.draft([5, 6, VOCAB + 1, 7], 3) == []
    assert tokens(drafter.draft([5, 6, 7], 30)) == tokens(before)


def test_beyond_its_own_context_it_drafts_nothing(llama):
    context = llama.config.max_position_embeddings
    drafter, sequence = ModelDrafter(llama, Chooser(Sampling(), SAME)), [5] * (context - 2)
    assert len(drafter.draft(sequence, 8)) == 2
    assert drafter.draft([*sequence, 6, 7], 8) == []
    assert drafter.draft([*sequence, 6, 7, 8], 8) == []


def test_the_context_is_counted_in_the_drafts_own_tokens(llama):
    context = llama.config.max_position_embeddings
    drafter, sequence = (
        ModelDrafter(llama, Chooser(Sampling(), EveryTokenIsTwo())),
        [5] * (context // 2 - 1),
    )
    assert len(drafter.draft(sequence, 8)) == 1
    assert drafter.draft([*sequence, 5], 8) == []


def test_a_translated_sequence_is_rolled_back_in_the_drafts_own_tokens(llama):
    drafter = ModelDrafter(llama, Chooser(Sampling(), EveryTokenIsTwo()))
    assert tokens_read(llama, lambda: drafter.draft([5, 6, 7], 1)) == [7]
    assert tokens_read(llama, lambda: drafter.draft([5, 6, 8], 1)) == [2]
    assert tokens_read(llama, lambda: drafter.draft([5, 6, 8, 9], 1)) == [2]


def test_with_nothing_to_read_nothing_is_drafted(llama):
    assert ModelDrafter(llama, Chooser(Sampling(), SAME)).draft([], 4) == []


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1, 2], [1, 2], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [1, 4, 3], 1),
        ([2], [1], 0),
    ],
)
def test_common_prefix(a, b, length):
    assert common_prefix(a, b) == common_prefix(b, a) == length
