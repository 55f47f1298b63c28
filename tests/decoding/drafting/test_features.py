"""A drafter that reads features drafts what its head says of every line alone."""

import random

import pytest
import torch

from helpers.feature_heads import (
    EAGLE,
    GLM,
    HIDDEN,
    QWEN,
    Reference,
    behind_the_last,
    beside_the_model,
    save_eagle,
    save_target,
    target_tensors,
)
from helpers.models import VOCAB
from swarm.decoding.drafting import features as module
from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.drafting.features import FeatureDrafter, FeatureReader
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.heads.loading import load_head

PLAIN = ComputeOptions(device="cpu", draft_dtype="float32")
GREEDY = Sampling()


class Watched(FeatureReader):
    """A reader that records the tokens of each pass."""

    def __init__(self, reader):
        self.reader = reader
        self.passes = []

    @property
    def known(self):
        return self.reader.known

    @property
    def context(self):
        return self.reader.context

    def enter(self, outputs):
        return self.reader.enter(outputs)

    def read(self, tokens, features, placement):
        self.passes.append(len(tokens))
        return self.reader.read(tokens, features, placement)

    def logits(self, states):
        return self.reader.logits(states)

    def forget(self):
        passes, self.passes = self.passes, []
        return passes


class Loaded:
    """A head with its target, and what both say in plain torch."""

    def __init__(self, folder, names, name):
        self.target = Checkpoint.open(str(folder / "target"))
        self.draft = load_head(name, self.target, self.target.tokenizer(), PLAIN)
        self.names = names
        self.own = target_tensors(folder / "target")
        self.head = target_tensors(folder / "head") if names is EAGLE else self.own

    def reference(self):
        return Reference(self.names, self.own, self.head)

    def drafter(self, sampling=GREEDY, shaping=NO_SHAPING, stop_ids=frozenset()):
        reader = Watched(self.draft.parts.reader())
        chooser = Chooser(sampling, self.draft.vocabulary, shaping, stop_ids, self.draft.source)
        return FeatureDrafter(reader, chooser)


@pytest.fixture(scope="module", params=["eagle", "glm", "qwen"])
def loaded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    more = {"eagle": None, "glm": behind_the_last(4), "qwen": beside_the_model()}[request.param]
    save_target(folder / "target", more)
    if request.param == "eagle":
        save_eagle(folder / "head")
        return Loaded(folder, EAGLE, str(folder / "head"))
    return Loaded(folder, {"glm": GLM, "qwen": QWEN}[request.param], "mtp")


@pytest.fixture(scope="module")
def eagle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eagle")
    save_target(folder / "target")
    save_eagle(folder / "head")
    return Loaded(folder, EAGLE, str(folder / "head"))


def some(count, seed=1):
    rng = random.Random(seed)
    return [rng.randrange(3, VOCAB) for _ in range(count)]


def outputs_of(count, seed=2):
    """The target's answers at the first positions of a text."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, HIDDEN, generator=generator))


def features(outputs, start=0):
    return [Feature(at, (), output) for at, output in enumerate(outputs[start:], start)]


def check(guesses, logits):
    assert len(guesses) == len(logits)
    for guess, row in zip(guesses, logits, strict=True):
        assert (guess.logits - row).norm() <= 1e-4 * row.norm()
        assert guess.token == int(row.argmax())


def test_it_drafts_what_the_head_says_of_the_text_and_of_its_own_states(loaded):
    """Several tokens in a row: a wrong norm or carried state would change the second one."""
    text, outputs = some(9), outputs_of(8)
    drafter, reference = loaded.drafter(), loaded.reference()
    drafter.answered(text, features(outputs))
    guesses = drafter.draft(text, 4)
    assert len(guesses) == 4
    line = tuple(text)
    for guess in guesses:
        check([guess], reference.read(outputs, line))
        line = (*line, guess.token)
    # the prompt in one pass, then a pass for each further token
    assert drafter.reader.passes == [8, 1, 1, 1]


def test_trees_and_lag_give_what_every_line_alone_gives(loaded):
    """A random walk: leaves of a tree are asked in any order, tokens of others among them, and
    answers come late."""
    rng = random.Random(4)
    for seed in range(3):
        text, outputs = some(6, seed), outputs_of(40, seed)
        drafter, reference = loaded.drafter(), loaded.reference()
        leaves, told = [()], 0
        for turn in range(12):
            paths = rng.sample(leaves, rng.randint(1, min(3, len(leaves))))
            known = outputs[: len(text) - 1]
            drafter.answered(text, features(known, told))
            told = len(known)
            drafted = drafter.draft_each(text, paths, 1)
            lines = [(*text, *path) for path in paths]
            check([guess for [guess] in drafted], reference.read(known, *lines))
            for path, [guess] in zip(paths, drafted, strict=True):
                leaves.remove(path)
                others = [token for token, _ in guess.others[:1]] if rng.random() < 0.5 else []
                leaves += [(*path, token) for token in (guess.token, *others)]
            if turn % 3 == 2:  # an answer decides one token or two
                for _ in range(rng.randint(1, 2)):
                    goes = [path for path in leaves if path]
                    token = rng.choice(goes)[0] if goes and rng.random() < 0.8 else some(1, turn)[0]
                    text.append(token)
                    leaves = [path[1:] for path in leaves if path[:1] == (token,)]
                leaves = leaves or [()]


def test_an_answer_costs_one_pass_for_what_is_settled_and_what_is_in_flight(eagle):
    text, outputs = some(9), outputs_of(12)
    drafter = eagle.drafter()
    drafter.answered(text, features(outputs[:8]))
    path = [guess.token for guess in drafter.draft(text, 5)]
    drafter.reader.forget()
    text += path[:2]
    drafter.answered(text, features(outputs[:10], 8))
    drafter.draft_each(text, [tuple(path[2:])], 1)
    assert drafter.reader.forget() == [2 + 3]  # the last of them was not read before


def test_what_left_the_text_is_not_read_again(eagle):
    text, outputs = some(9), outputs_of(12)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs[:8]))
    path = [guess.token for guess in drafter.draft(text, 5)]
    text.append(next(token for token in range(3, VOCAB) if token != path[0]))
    drafter.answered(text, features(outputs[:9], 8))
    drafter.reader.forget()
    [guess] = drafter.draft(text, 1)
    assert drafter.reader.forget() == [1]
    check([guess], reference.read(outputs[:9], tuple(text)))


def test_an_answer_at_a_branch_counts_once_the_text_goes_there(eagle):
    text, outputs = some(9), outputs_of(12)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs[:8]))
    [guess] = drafter.draft(text, 1)
    other = guess.others[0][0]
    branch = [Feature(9, (other,), outputs[9])]
    drafter.answered(text, [Feature(8, (), outputs[8]), *branch])
    text += [other, 5]
    [guess] = drafter.draft(text, 1)
    check([guess], reference.read(outputs[:10], tuple(text)))


def test_nothing_is_drafted_before_the_end_of_the_text_is_answered(eagle):
    text, outputs = some(9), outputs_of(8)
    drafter = eagle.drafter()
    assert drafter.draft_each(text, [(), (4,)], 3) == [[], []]
    drafter.answered(text, features(outputs[:7]))
    assert drafter.draft(text, 3) == []
    drafter.answered(text, features(outputs, 7))
    assert len(drafter.draft(text, 3)) == 3


def test_a_prompt_of_which_only_the_end_is_answered_is_read_from_there(eagle):
    text, outputs = some(600), outputs_of(599)
    drafter = eagle.drafter()
    text = text[:200]
    drafter.answered(text, features(outputs[:199], 150))
    drafter.draft(text, 1)
    assert drafter.reader.passes == [49]


def test_a_gap_in_the_answers_is_bridged_by_its_own_states(eagle):
    """A token that was in flight has a state to stand for the answer that was lost."""
    text, outputs = some(9), outputs_of(14)
    drafter = eagle.drafter()
    drafter.answered(text, features(outputs[:8]))
    path = [guess.token for guess in drafter.draft(text, 3)]
    drafter.reader.forget()
    text += path
    drafter.answered(text, [Feature(10, (), outputs[10])])
    assert len(drafter.draft(text, 1)) == 1
    assert drafter.reader.forget() == [3]


def test_behind_a_longer_gap_it_begins_anew(eagle):
    text, outputs = some(9), outputs_of(40)
    drafter = eagle.drafter()
    drafter.answered(text, features(outputs[:8]))
    drafter.draft(text, 1)
    text += some(20, 8)
    drafter.reader.forget()
    drafter.answered(text, features(outputs[:28], 20))
    assert len(drafter.draft(text, 1)) == 1
    assert drafter.reader.forget() == [8]


def test_a_long_prompt_is_read_in_pieces(eagle, monkeypatch):
    monkeypatch.setattr(module, "READ_TOKENS", 3)
    text, outputs = some(9), outputs_of(8)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs))
    check(drafter.draft(text, 1), reference.read(outputs, tuple(text)))
    assert drafter.reader.passes == [3, 3, 2]


def test_branches_are_read_again_when_they_are_wanted(eagle):
    """Not at each answer: only what leads to the drafts that are asked for."""
    text, outputs = some(9), outputs_of(12)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs[:8]))
    [guess] = drafter.draft(text, 1)
    reference.read(outputs[:8], tuple(text))
    main, other = guess.token, guess.others[0][0]
    lines = [(main, 5), (main, 6), (main, 5, 7), (other,)]
    drafter.draft_each(text, lines, 1)
    reference.read(outputs[:8], *((*text, *line) for line in lines))
    drafter.reader.forget()
    text.append(main)
    drafter.answered(text, features(outputs[:9], 8))
    for path, read in (((5, 7), 3), ((6,), 1)):
        [[guess]] = drafter.draft_each(text, [path], 1)
        assert drafter.reader.forget() == [read]
        check([guess], reference.read(outputs[:9], (*text, *path)))


def test_many_tokens_of_others_are_not_caught_up_with_at_once(eagle):
    text, outputs = some(9), outputs_of(8)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs))
    path = tuple(some(module.MAX_STEPS + 2, 3))
    assert drafter.draft_each(text, [path], 1) == [[]]
    [[guess]] = drafter.draft_each(text, [path], 1)
    check([guess], reference.read(outputs, (*text, *path)))


def test_it_stops_at_the_head_s_context_and_at_stop_tokens(eagle):
    text, outputs = some(9), outputs_of(8)
    drafter = eagle.drafter()
    drafter.answered(text, features(outputs))
    first = drafter.draft(text, 3)[0].token
    stopping = eagle.drafter(stop_ids=frozenset({first}))
    stopping.answered(text, features(outputs))
    assert [guess.token for guess in stopping.draft(text, 3)] == [first]
    long = some(255)
    drafter = eagle.drafter()
    drafter.answered(long, features(outputs_of(254)))
    assert len(drafter.draft(long, 5)) == 2
    assert drafter.draft([*long, 5, 6], 5) == []


def test_shaping_and_noise_are_the_target_s(eagle):
    sampling, shaping = Sampling(1.0, top_k=20, seed=3), Shaping(repetition_penalty=3.0)
    text, outputs = some(9), outputs_of(8)
    drafter, reference = eagle.drafter(sampling, shaping), eagle.reference()
    drafter.answered(text, features(outputs))
    [guess] = drafter.draft(text, 1)
    row = shaping.apply(torch.stack(reference.read(outputs, tuple(text))), text)
    [((token, _), *_)] = sampling.rank(row, [len(text)], 4)
    assert guess.token == token


def test_another_text_is_begun_anew(eagle):
    text, outputs = some(9), outputs_of(8)
    drafter, reference = eagle.drafter(), eagle.reference()
    drafter.answered(text, features(outputs))
    drafter.draft(text, 2)
    other = some(7, 9)
    assert drafter.draft(other, 1) == []
    drafter.answered(other, features(outputs[:6]))
    check(drafter.draft(other, 1), reference.read(outputs[:6], tuple(other)))
