"""A drafter that reads whole trees drafts what the model alone drafts, and reads no token twice."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.models import ARCHITECTURES, VOCAB, WINDOW, Architecture
from swarm.decoding.drafting import tree as module
from swarm.decoding.drafting.choices import CHOICES, Chooser
from swarm.decoding.drafting.model import ModelDrafter
from swarm.decoding.drafting.tree import TreeDrafter, TreeReader
from swarm.decoding.drafting.vocabulary import SameVocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.model.branching import BranchingModel
from swarm.wire.token_tree import MAX_TAIL

SAME = SameVocabulary(VOCAB)
SAMPLED = Sampling(1.0, top_k=20, seed=3)
PENALTY = Shaping(repetition_penalty=3.0, logit_bias=((9, 4.0), (31, -9.0)))


class Watched(TreeReader):
    """A reader that records the tokens of each forward, and the rows of the cache behind it."""

    def __init__(self, reader):
        self.reader = reader
        self.read_tokens = []
        self.rows = []

    @property
    def known(self):
        return self.reader.known

    @property
    def context(self):
        return self.reader.context

    def read(self, tokens, placement, rows):
        self.read_tokens.append(len(tokens))
        self.rows.append(placement.start + len(tokens))
        assert self.rows[-1] - placement.trunk <= MAX_TAIL
        return self.reader.read(tokens, placement, rows)

    def forget(self):
        """What was noted so far."""
        noted, self.read_tokens = self.read_tokens, []
        return noted


class Model:
    """A whole model, the drafters that share its weights, and what it says of a sequence alone."""

    def __init__(self, model):
        self.whole = model
        self.branching = BranchingModel.of(model)

    def drafter(self, sampling=SAMPLED, vocabulary=SAME, shaping=NO_SHAPING, stop_ids=frozenset()):
        chooser = Chooser(sampling, vocabulary, shaping, stop_ids)
        return TreeDrafter(Watched(self.branching.reader()), chooser)

    @torch.inference_mode()
    def alone(self, sequence, shaping=NO_SHAPING):
        logits = self.whole(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1:]
        return shaping.apply(logits, sequence)

    def check(self, sequence, guess, sampling=SAMPLED, shaping=NO_SHAPING):
        """That a guess is what a full reading of its own path gives."""
        row = self.alone(sequence, shaping)
        assert guess.logits.shape == (VOCAB,)
        torch.testing.assert_close(guess.logits, row[0], rtol=1e-4, atol=1e-4)
        [((token, sure), *others)] = sampling.rank(row, [len(sequence)], CHOICES)
        assert guess.token == token
        assert [other for other, _ in guess.others] == [other for other, _ in others]
        assert [guess.confidence, *(sure for _, sure in guess.others)] == pytest.approx(
            [sure, *(sure for _, sure in others)], abs=1e-3
        )


@pytest.fixture(scope="module", params=["llama", "qwen3", "mistral", "gemma2", "gpt_oss"])
def model(request, tmp_path_factory):
    return Model(ARCHITECTURES[request.param].save(tmp_path_factory.mktemp("draft")))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Model(ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("draft")))


def tokens(drafted):
    return [guess.token for guess in drafted]


class Walk:
    """A generation: a text that grows, and a tree of paths behind it for a drafter to continue."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.text = self.some(2 * WINDOW)
        self.leaves = [()]

    def some(self, count):
        return [self.rng.randrange(3, VOCAB) for _ in range(count)]

    def ask(self):
        """Some of the leaves, in any order."""
        return self.rng.sample(self.leaves, self.rng.randint(1, min(4, len(self.leaves))))

    def grow(self, paths, drafted):
        """Let the first choice follow each path; sometimes the second, or a token never drafted."""
        for path, guesses in zip(paths, drafted, strict=True):
            self.leaves.remove(path)
            for guess in guesses[:1]:
                others = [other for other, _ in guess.others][: self.rng.randint(0, 2)]
                self.leaves += [(*path, token) for token in {guess.token, *others}]

    def commit(self):
        """The text takes a way through the tree, or out of it; what does not follow is dead."""
        way = [*self.rng.choice(self.leaves or [()]), *self.some(1)][: self.rng.randint(1, 4)]
        self.text += way
        alive = [path[len(way) :] for path in self.leaves if list(path[: len(way)]) == way]
        self.leaves = alive or [()]


def walk(model, sampling, shaping, seed, steps):
    drafter, walked = model.drafter(sampling, shaping=shaping), Walk(seed)
    for _ in range(steps):
        paths = walked.ask()
        drafted = drafter.draft_each(walked.text, paths, 1)
        for path, guesses in zip(paths, drafted, strict=True):
            model.check([*walked.text, *path], guesses[0], sampling, shaping)
        walked.grow(paths, drafted)
        if walked.rng.random() < 0.3:
            walked.commit()


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_every_path_is_drafted_as_if_it_were_alone(model, sampling):
    walk(model, sampling, NO_SHAPING, seed=5, steps=25)


def test_every_path_has_its_own_history_for_the_penalty(llama):
    walk(llama, SAMPLED, PENALTY, seed=6, steps=25)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([Sampling(), SAMPLED]),
    st.sampled_from([NO_SHAPING, PENALTY]),
)
def test_whatever_is_asked_for_in_whatever_order(llama, seed, sampling, shaping):
    walk(llama, sampling, shaping, seed, steps=12)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_a_line_is_what_a_model_drafter_drafts(model, sampling):
    rng = random.Random(7)
    drafter, plain = model.drafter(sampling), ModelDrafter(model.whole, Chooser(sampling, SAME))
    sequence = [rng.randrange(3, VOCAB) for _ in range(2 * WINDOW)]
    for turn in range(12):
        count = rng.randint(1, 6)
        drafted = tokens(drafter.draft(sequence, count))
        assert drafted == tokens(plain.draft(sequence, count)), f"turn {turn}"
        sequence = [*sequence, *drafted[: rng.randint(0, count)], rng.randrange(3, VOCAB)]


def test_several_lines_grow_side_by_side(llama):
    paths = [[10], [11, 12], []]
    drafter = llama.drafter()
    lines = drafter.draft_each([5, 6, 7], paths, 4)
    plain = ModelDrafter(llama.whole, Chooser(SAMPLED, SAME))
    assert list(map(tokens, lines)) == [tokens(plain.draft([5, 6, 7, *path], 4)) for path in paths]
    assert drafter.reader.forget() == [6, 3, 3, 3]


def test_it_reads_only_what_is_new(llama):
    drafter = llama.drafter()
    reader, prompt = drafter.reader, [5, 6, 7, 8, 9]
    drafter.draft_each(prompt, [()], 1)
    drafter.draft_each(prompt, [(10,), (11,), (12,)], 1)
    drafter.draft_each(prompt, [(10, 20), (12, 21)], 1)
    assert reader.forget() == [5, 3, 2]
    # Another branch is taken than the first: nothing on the way is read again, and the others are
    # forgotten.
    drafter.draft_each([*prompt, 12], [(21, 30), (22,)], 1)
    assert (reader.forget(), reader.rows[-1]) == ([2], 5 + 1 + 1 + 2)
    drafter.draft_each([*prompt, 12, 21], [(30, 31)], 1)
    assert (reader.forget(), reader.rows[-1]) == ([1], 5 + 2 + 1 + 1)
    # The text leaves the tree.
    drafter.draft_each([*prompt, 12, 21, 40], [()], 1)
    drafter.draft_each([*prompt, 12, 21, 40], [(41,), (42,)], 1)
    assert (reader.forget(), reader.rows[-1]) == ([1, 2], 5 + 3 + 2)
    # It grew by more than was drafted.
    drafter.draft_each([*prompt, 12, 21, 40, 42, 50, 51, 52], [()], 1)
    assert reader.forget() == [3]


def test_what_was_asked_before_may_be_asked_again(llama):
    drafter = llama.drafter()
    for paths in ([()], [()], [(10,), (11, 12)], [(11, 12), (11,)], [()], [(11,), ()]):
        for path, guesses in zip(paths, drafter.draft_each([5, 6, 7], paths, 1), strict=True):
            llama.check([5, 6, 7, *path], guesses[0])


def test_a_text_that_goes_back_is_not_read_again_from_its_beginning(llama):
    drafter, long = llama.drafter(), list(range(3, 30))
    reader = drafter.reader
    for sequence, read in (
        (long, 27),
        (long[:9], 1),
        (long[:9], 1),
        (long[:10], 1),
        ([50, 51], 2),
        ([50], 1),
    ):
        guess = drafter.draft(sequence, 1)[0]
        llama.check(sequence, guess)
        assert reader.forget() == [read]


def test_a_text_that_leaves_the_tree_before_its_root_goes_on_where_rows_are_in_order(llama):
    """The root has moved on to a branch, whose row does not follow that of its parent."""
    drafter, prompt = llama.drafter(), [5, 6, 7]
    drafter.draft_each(prompt, [(8,), (9,)], 1)
    for text, path in (
        ([*prompt, 9], (10,)),
        ([*prompt, 9, 10], (11,)),
        ([*prompt, 12], (13,)),
        ([5, 6], (9,)),
    ):
        llama.check([*text, *path], drafter.draft_each(text, [path], 1)[0][0])


def test_a_tree_that_grows_too_large_is_forgotten_and_the_text_is_not(llama):
    drafter, text = llama.drafter(), [5, 6, 7]
    paths = [(a, b) for a in range(3, 40) for b in range(3, 40)]
    for start in range(0, len(paths), 50):
        some = paths[start : start + 50]
        for path, guesses in list(zip(some, drafter.draft_each(text, some, 1), strict=True))[::10]:
            llama.check([*text, *path], guesses[0])
    assert max(drafter.reader.rows) <= len(text) + MAX_TAIL
    assert sum(drafter.reader.read_tokens) < len(paths) + 2 * 37 + 2 * len(text)


def test_a_long_text_is_read_in_pieces(llama, monkeypatch):
    monkeypatch.setattr(module, "READ_TOKENS", 16)
    drafter, text = llama.drafter(), [3 + i % 90 for i in range(70)]
    for path, guesses in zip([(), (8,)], drafter.draft_each(text, [(), (8,)], 1), strict=True):
        llama.check([*text, *path], guesses[0])
    assert drafter.reader.forget() == [16, 16, 16, 16, 7]


def test_a_long_generation_takes_no_more_than_its_text_and_a_tree(tmp_path):
    model = Model(Architecture("llama", {"max_position_embeddings": 512}).save(tmp_path))
    drafter, rng, text, behind = model.drafter(), random.Random(8), [5, 6, 7], []
    for _ in range(150):
        [[guess]] = drafter.draft_each(text, [()], 1)
        others = [other for other, _ in guess.others]
        drafter.draft_each(text, [(guess.token,), *((other,) for other in others)], 1)
        text.append(rng.choice([guess.token, *others, 3]))
        behind.append(drafter.reader.rows[-1] - len(text))
    assert max(behind) <= 2 * CHOICES
    assert len(drafter._root.children) <= 2 * CHOICES
    model.check(text, drafter.draft(text, 1)[0])


def test_it_stops_behind_a_stop_token(llama):
    free = tokens(llama.drafter().draft([5, 6, 7], 8))
    stop = free[3]
    stopping = llama.drafter(stop_ids=frozenset({stop}))
    cut, other = stopping.draft_each([5, 6, 7], [(), (8,)], 8)
    assert tokens(cut) == free[: free.index(stop) + 1]
    assert stop in tokens(other)[-1:] or len(other) == 8


def test_nothing_asked_nothing_drafted(llama):
    drafter = llama.drafter()
    assert drafter.draft([5, 6, 7], 0) == []
    assert drafter.draft_each([5, 6, 7], [], 3) == []
    assert drafter.draft([], 3) == []
    assert drafter.reader.forget() == []


def test_padding_of_the_drafts_vocabulary_is_never_drafted(llama):
    drafted = llama.drafter(Sampling(5.0), SameVocabulary(20)).draft([5, 6, 7], 40)
    assert max(tokens(drafted)) < 20


def test_a_token_that_the_draft_model_does_not_know_ends_its_path_alone(llama):
    drafter = llama.drafter(Sampling(5.0), SameVocabulary(VOCAB + 30))
    known, unknown = drafter.draft_each([5, 6, 7], [(8,), (VOCAB + 1,)], 4)
    assert (len(known), unknown) == (4, [])
    assert all(guess.logits.shape == (VOCAB + 30,) for guess in known)
    assert drafter.draft_each([5, VOCAB + 1, 7], [(), (8,)], 3) == [[], []]


def test_beyond_its_own_context_it_drafts_nothing(llama):
    context = llama.whole.config.max_position_embeddings
    drafter, text = llama.drafter(), [5] * (context - 3)
    assert list(map(len, drafter.draft_each(text, [(), (6,), (6, 7), (6, 7, 8)], 8))) == [
        3,
        2,
        1,
        0,
    ]


class EveryTokenIsTwo:
    """A vocabulary that the draft spells out at double length, behind an opening.

    It cannot spell one token.
    """

    opening = (1,)

    def encode(self, sequence):
        return [half for token in sequence if token != 96 for half in (token, 3)]

    def project(self, logits):
        return logits


def test_a_translated_text_is_followed_in_the_drafts_own_tokens(llama):
    drafter, plain = (
        llama.drafter(vocabulary=EveryTokenIsTwo()),
        ModelDrafter(llama.whole, Chooser(SAMPLED, EveryTokenIsTwo())),
    )
    asked = [
        ([5, 6], [()]),
        ([5, 6], [(7,), (8,), (8, 96), (96,)]),
        ([5, 6, 8], [(9,), (10, 11)]),
        ([5, 96], [(6,)]),
    ]
    for text, paths in asked:
        lines = drafter.draft_each(text, paths, 2)
        assert list(map(tokens, lines)) == [
            tokens(plain.draft([*text, *path], 2)) for path in paths
        ]
    context = llama.whole.config.max_position_embeddings
    assert list(map(len, drafter.draft_each([5] * (context // 2 - 2), [(), (6,), (6, 7)], 8))) == [
        2,
        1,
        0,
    ]
