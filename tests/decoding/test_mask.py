"""Masks decide what follows an answer, and drafts keep to them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoder_bench import VOCABULARY, Target, decoder_for, plans, run, setups
from helpers.masks import EveryThird
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.lawful import lawful
from swarm.decoding.mask import NotBefore, put_out
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.shaping import Shaping

MASK = EveryThird(VOCABULARY)


class MaskedTarget(Target):
    """A target whose choices keep to `MASK`."""

    def __init__(self, target: Target, prompt: list[int]) -> None:
        super().__init__(target.salt, target.stops)
        self._prompt = prompt

    def after(self, text: list[int]) -> int:
        choice = super().after(text)
        banned = MASK.banned(text[len(self._prompt) :])
        scores = torch.zeros(VOCABULARY)
        scores[choice] = 1.0
        return int(scores.masked_fill(banned, -1.0).argmax())

    def logits(self, texts: list[list[int]]) -> torch.Tensor:
        choices = [Target.after(self, text) for text in texts]
        return torch.nn.functional.one_hot(torch.tensor(choices).long(), VOCABULARY).float()


@settings(max_examples=100, deadline=None)
@given(setups(), plans, st.sampled_from(["right", "wrong", "second", "random", "stop"]))
def test_a_masked_text_is_that_of_plain_decoding(setup, plan, kind):
    target, prompt, options = setup
    masked = MaskedTarget(target, prompt)
    shaping = Shaping(masks=(MASK,), prompt_tokens=len(prompt))
    decoder = decoder_for(prompt, plan, shaping=shaping, **options)
    run(decoder, masked, [kind])
    plain = decoder_for(prompt, SpeculationPlan(), shaping=shaping, **options)
    run(plain, masked)
    assert decoder.tokens == plain.tokens
    assert decoder.tokens[len(prompt) :] == masked.plain(prompt, options["max_new_tokens"])


def guess(token, *others):
    return Drafted(token, None, 0.8, tuple((other, 0.1) for other in others))


def test_a_banned_guess_ends_a_line_and_its_next_choice_takes_its_place():
    # behind an answer of sum 0 the tokens 0 and 3 are banned, of sum 1 the tokens 2 and 5
    line = lawful([MASK], [], [guess(1, 3, 4), guess(2, 5, 4), guess(1)])
    assert [each.token for each in line] == [1, 4]
    assert line[0].others == ((4, 0.1),)
    assert lawful([MASK], [], [guess(0), guess(1)]) == []
    assert [each.token for each in lawful([], [], [guess(0), guess(1)])] == [0, 1]


def test_a_guess_drawn_from_a_distribution_is_not_replaced():
    drawn = Drafted(0, torch.zeros(VOCABULARY), 0.8, ((1, 0.1),))
    assert lawful([MASK], [], [drawn]) == []


def test_tokens_are_banned_until_the_answer_is_long_enough():
    mask = NotBefore(2, frozenset({4}), VOCABULARY)
    assert mask.banned([1]).tolist() == [False] * 4 + [True, False]
    assert mask.banned([1, 1]) is None


def test_a_row_may_be_longer_or_shorter_than_its_mask():
    banned = torch.tensor([True, False])
    for size, expected in ((1, "b"), (2, "b."), (4, "b.bb")):
        row = torch.zeros(size)
        put_out(row, banned)
        assert "".join("b" if each < 0 else "." for each in row.tolist()) == expected
