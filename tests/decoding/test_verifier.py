"""What follows the tip is decided by as much as is known of the target's answers, and no more."""

import pytest
import torch

from helpers.decoder_bench import GREEDY, VOCABULARY
from swarm.decoding.candidates import CandidateRow, choose_candidates, read_candidates
from swarm.decoding.confidence import Confidence
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Needs
from swarm.decoding.shaping import NO_SHAPING
from swarm.decoding.verifier import Verifier
from swarm.wire.candidates import HeadTerms

TEXT = [1]


def tree(*drafted: int) -> DraftTree:
    """A tip, and a line of drafted tokens behind it."""
    grown = DraftTree(DraftNode(TEXT[-1], 0))
    grown.grow(grown.tip, [Drafted(token) for token in drafted], Confidence())
    return grown


def prediction(choice: int) -> torch.Tensor:
    row = torch.zeros(VOCABULARY)
    row[choice] = 1.0
    return row


def told(choice: int) -> CandidateRow:
    terms = HeadTerms(count=8)
    answer = choose_candidates(prediction(choice)[None], [1], terms)
    (row,) = read_candidates(answer, terms, VOCABULARY)
    return row


def test_the_rule_sees_no_more_drafts_than_there_are_predictions():
    class Recorder:
        exact = True
        needs_drawn = False
        needs = Needs.LOGITS

        def judge(self, logits, history, drafted, choices):
            self.seen = len(logits), list(history), [guess.token for guess in drafted]
            return GREEDY.judge(logits, history, drafted)

    recorder = Recorder()
    tip = tree(2, 3).tip
    tip.logits = prediction(2)
    (decision,) = Verifier(recorder, NO_SHAPING).decide(tip, TEXT)
    assert recorder.seen == (1, [1], [2])
    assert decision.token == 2
    assert decision.raw is tip.logits


def test_the_main_line_is_judged_as_far_as_it_is_answered():
    tip = tree(2, 3, 4).tip
    for (node, _), choice in zip(tip.line(), [2, 3], strict=False):
        node.logits = prediction(choice)
    assert [each.token for each in Verifier(GREEDY, NO_SHAPING).decide(tip, TEXT)] == [2, 3]


def test_without_an_answer_nothing_is_decided():
    verifier = Verifier(GREEDY, NO_SHAPING)
    tip = tree(2).tip
    assert not verifier.may_judge(tip)
    assert verifier.decide(tip, TEXT) == []


@pytest.mark.parametrize("drafted", [(), (5,), (6,)])
def test_a_part_of_a_prediction_decides_as_the_whole_does(drafted):
    verifier = Verifier(GREEDY, NO_SHAPING)
    by_part = tree(*drafted).tip
    by_part.told = told(5)
    whole = tree(*drafted).tip
    whole.logits = prediction(5)
    (decision,) = verifier.decide(by_part, TEXT)
    (expected,) = verifier.decide(whole, TEXT)
    assert (decision.token, decision.kept) == (expected.token, expected.kept)
    assert decision.logits is None


def test_with_likelihoods_a_part_comes_with_the_log_probabilities_it_is_sure_of():
    verifier = Verifier(GREEDY, NO_SHAPING)
    verifier.likelihoods = True
    tip = tree().tip
    tip.told = told(5)
    (decision,) = verifier.decide(tip, TEXT)
    assert decision.logits is not None
