"""The client's side of a generation against a whole model in the place of the chain, with drafters
of every kind."""

import random

import pytest
import torch

from helpers.models import ARCHITECTURES, VOCAB
from helpers.sequence_bench import NEW, PROMPT, STOP, Tokenizer, models, options
from helpers.simulated_chain import SimulatedChain
from swarm.client.sequence import Draft, TextSequence
from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.vocabulary import SameVocabulary
from swarm.decoding.streaming import STREAM_LEAVES
from swarm.errors import PromptTooLong, RequestError
from swarm.model.branching import BranchingModel
from swarm.model.drafts.draft import DraftModel
from swarm.outputs import Measured

MEASURED = Measured(50.0, (1.0,), (0.0,))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("models") / "target")


@torch.inference_mode()
def predictions(target, tokens):
    return target(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def run(target, request, drafter=None, eos=frozenset()):
    """Drive a turn to its end; the chain reads everything again for every window."""
    turn = TextSequence(models(eos), PROMPT, request)
    if drafter is not None:
        turn.drafters = {Source.MODEL: drafter}
    sent = []
    while not turn.decoder.finish_reason:
        while ask := turn.ask():
            turn.propose(ask, turn.draft(ask))
        for window in list(iter(turn.next_window, None)):
            sent[window.position :] = window.tokens
            taken = turn.take([window], MEASURED)
            logits = predictions(target, sent)[len(sent) - window.tail :][[row for row, _ in taken]]
            hidden = 2 * logits  # of no meaning, but of every answer its own
            turn.judge([node for _, node in taken], logits, MEASURED, hidden)
    return turn.sum_up()


class Scripted(Drafter):
    """Drafts by a function of the right continuation; ``right`` is the whole new text."""

    def __init__(self, right, distort):
        self.right, self.distort, self.calls = right, distort, 0

    def draft(self, sequence, count):
        self.calls += 1
        after = list(self.right[len(sequence) - len(PROMPT) :])[:count]
        return [Drafted(token) for token in self.distort(after, self.calls, count)]


DISTORTIONS = {
    "always right": lambda after, call, count: after,
    "always wrong": lambda after, call, count: [(token + 1) % VOCAB for token in after],
    "now and then wrong": lambda after, call, count: [
        (token + (i + call) % 3 // 2) % VOCAB for i, token in enumerate(after)
    ],
    "longer than asked": lambda after, call, count: [*after, *[9] * 30],
    "shorter than asked": lambda after, call, count: after[: call % 2],
    "with stop tokens inside": lambda after, call, count: [*after[:1], STOP, *after[2:]],
}


@pytest.fixture(scope="module")
def plain(target):
    """The new tokens of plain decoding, by request."""
    known = {}

    def of(eos=frozenset(), **changed):
        key = repr((sorted(eos), sorted(changed.items())))
        if key not in known:
            known[key] = run(target, options(**{**changed, "window": 0}), eos=eos)
        return known[key]

    return of


SAMPLED = ["greedy", "0.7", "1.0 with a penalty", "min p"]
SAMPLING = [
    {},
    {"temperature": 0.7, "seed": 3},
    {"temperature": 1.0, "top_k": 9, "seed": 4, "repetition_penalty": 1.2},
    {
        "temperature": 1.0,
        "min_p": 0.1,
        "seed": 5,
        "presence_penalty": 1.5,
        "frequency_penalty": 0.5,
    },
]


@pytest.mark.parametrize("sampling", SAMPLING, ids=SAMPLED)
@pytest.mark.parametrize("window", [1, 4, 16, "auto"])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_whatever_is_drafted_the_output_is_that_of_plain_decoding(
    kind, window, sampling, target, plain
):
    expected = plain(**sampling)
    drafter = Scripted(expected.token_ids, DISTORTIONS[kind])
    said = run(target, options(window=window, **sampling), drafter)
    assert (said.token_ids, said.text) == (expected.token_ids, expected.text)
    assert said.stats.finish_reason == "length"
    if kind == "always right":
        assert said.stats.accepted_tokens == said.stats.drafted_tokens > 0


def test_plain_decoding_is_that_of_transformers_penalty_and_all(target, plain):
    for penalty in (1.0, 1.3):
        ids = torch.tensor([PROMPT])
        reference = target.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=None,
        )
        assert (
            list(plain(repetition_penalty=penalty).token_ids)
            == reference[0, len(PROMPT) :].tolist()
        )


def test_a_bias_bans_a_token_for_target_and_draft_alike(target, plain):
    banned = plain().token_ids[3]
    expected = plain(logit_bias={banned: -100})
    assert banned not in expected.token_ids
    drafter = Scripted(plain().token_ids, DISTORTIONS["always right"])
    assert run(target, options(logit_bias={banned: -100}), drafter).token_ids == expected.token_ids


@pytest.mark.parametrize("window", [0, 4])
def test_the_likeliest_tokens_are_told_with_their_log_probabilities(window, target, plain):
    expected = plain(repetition_penalty=1.3)
    drafter = Scripted(expected.token_ids, DISTORTIONS["now and then wrong"]) if window else None
    asked = options(window=window, repetition_penalty=1.3, logprobs=3)
    said = run(target, asked, drafter)
    assert said.token_ids == expected.token_ids
    for i, piece in enumerate(said.pieces):
        tokens = [*PROMPT, *said.token_ids[:i]]
        (row,) = asked.shaping.apply(predictions(target, tokens)[-1:], tokens, [])
        right, likeliest = row.log_softmax(-1), row.topk(3).indices.tolist()
        assert [each.token_id for each in piece.likely] == likeliest
        assert [each.logprob for each in piece.likely] == pytest.approx(
            right[likeliest].tolist(), abs=1e-4
        )
        assert [each.text for each in piece.likely] == [
            Tokenizer().decode([token]) for token in likeliest
        ]
        assert piece.logprob == pytest.approx(float(right[piece.token_id]), abs=1e-4)
    assert {piece.logprob for piece in expected.pieces} == {None}  # nobody asked


@pytest.mark.parametrize("window", [0, 4])
def test_tensors_that_are_asked_for_are_those_that_decided(window, target, plain):
    expected = plain(repetition_penalty=1.3)
    drafter = Scripted(expected.token_ids, DISTORTIONS["now and then wrong"]) if window else None
    said = run(
        target,
        options(window=window, repetition_penalty=1.3, logits=True, hidden_states=True),
        drafter,
    )
    assert said.token_ids == expected.token_ids
    for i, piece in enumerate(said.pieces):
        right = predictions(target, [*PROMPT, *said.token_ids[:i]])[-1]  # before the penalty
        torch.testing.assert_close(piece.logits, right)
        torch.testing.assert_close(piece.hidden_state, 2 * right)
        assert piece.logits.untyped_storage().nbytes() == piece.logits.nbytes, (
            "it keeps nothing but itself"
        )
    # nobody asked
    assert {(piece.logits, piece.hidden_state) for piece in expected.pieces} == {(None, None)}


def test_other_tokens_than_the_models_may_end_a_text(target, plain):
    own, other = plain().token_ids[15], plain().token_ids[5]
    said = run(target, options(window=0, stop_token_ids=[other]), eos={own})
    assert said.token_ids == plain().token_ids[: plain().token_ids.index(other) + 1]
    assert said.stats.finish_reason == "stop"
    assert (
        run(target, options(window=0, stop_token_ids=[]), eos={own}).token_ids == plain().token_ids
    )


def test_a_stop_token_ends_the_text_inside_a_window_too(target, plain):
    eos = {plain().token_ids[9]}
    expected = plain(eos)
    assert len(expected.token_ids) <= 10
    said = run(
        target, options(window=16), Scripted(plain().token_ids, DISTORTIONS["always right"]), eos
    )
    assert (said.token_ids, said.text, said.stats.finish_reason) == (
        expected.token_ids,
        expected.text,
        "stop",
    )


def test_a_stop_string_spread_over_tokens_cuts_the_text_alike(target, plain):
    whole = plain().text
    at = whole.index(";", 20) - 1
    stop = whole[at : at + 5]
    expected = plain(stop=(stop,))
    assert expected.text == whole[: whole.index(stop)]
    assert expected.stats.finish_reason == "stop"
    for window in (4, 16):
        said = run(
            target,
            options(window=window, stop=stop),
            Scripted(plain().token_ids, DISTORTIONS["always right"]),
        )
        assert (said.text, said.token_ids) == (expected.text, expected.token_ids)


def test_text_held_back_for_a_stop_string_that_never_came_is_not_lost(target, plain):
    end = plain().text[-2:]
    assert plain(stop=(end + "never",)).text == plain().text


def test_a_drafter_that_fails_ends_drafting_and_not_the_generation(target, plain):
    def fail(after, call, count):
        if call == 3:
            raise ZeroDivisionError("no more ideas")
        return after

    drafter = Scripted(plain().token_ids, fail)
    said = run(target, options(), drafter)
    assert said.token_ids == plain().token_ids
    assert said.stats.draft_error == "ZeroDivisionError: no more ideas"
    assert (drafter.calls, said.stats.accepted_tokens) == (3, 8)


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    """A model that agrees with the target now and then, and reads trees."""
    model = ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("models") / "draft")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return DraftModel(
        model,
        SameVocabulary(VOCAB),
        BranchingModel.of(model),
        "float32",
        model.num_parameters(),
        VOCAB,
    )


def stream(target, request, draft, seed):
    """Drive a turn over a chain of two peers whose frames and answers fall as luck will have it."""
    turn, chain, rng = (
        TextSequence(models(draft=draft), PROMPT, request),
        SimulatedChain(),
        random.Random(seed),
    )
    asked = []
    while not turn.decoder.finish_reason:
        for _ in range(rng.randint(0, 4)):
            if ask := turn.ask():
                asked.append(len(ask.nodes))
                turn.propose(ask, turn.draft(ask))
        if rng.random() < 0.7 and (window := turn.next_window()):
            chain.send(window)
        for number in (0, 1):
            if chain.waiting[number] and rng.random() < 0.5:
                chain.step(number)
        if chain.answers and rng.random() < 0.5:
            windows, texts = chain.answers.popleft()
            if taken := turn.take(windows, MEASURED):
                logits = torch.stack(
                    [predictions(target, list(texts[row]))[-1] for row, _ in taken]
                )
                turn.judge([node for _, node in taken], logits, MEASURED)
    return turn.sum_up(), asked


@pytest.mark.parametrize("sampling", SAMPLING, ids=SAMPLED)
@pytest.mark.parametrize("lookup", [False, True], ids=["model", "lookup and model"])
def test_streaming_branches_that_are_drafted_together_says_what_plain_decoding_says(
    lookup, sampling, target, draft, plain
):
    expected = plain(**sampling)
    seed = SAMPLING.index(sampling)  # of what happens when
    said, asked = stream(
        target, options(window="auto", depth="auto", lookup=lookup, **sampling), draft, seed
    )
    assert said.token_ids == expected.token_ids
    assert said.stats.draft_error is None
    assert said.stats.accepted_tokens > 0
    assert 1 < max(asked) <= STREAM_LEAVES


def test_what_is_drafted_together_takes_its_time_once(draft):
    turn = TextSequence(
        models(draft=draft), PROMPT, options(window="auto", depth="auto", lookup=False)
    )
    turn.propose(
        turn.ask(), Draft([[Drafted(9, None, 0.5, ((10, 0.2), (11, 0.1)))]], seconds=0.002)
    )
    ask = turn.ask()
    assert len(ask.nodes) == 3
    turn.propose(ask, Draft([[Drafted(12)], [], [Drafted(13)]], seconds=0.004))
    assert turn.meter.drafts == [(1, 0.002), (1, 0.004)]
    assert turn.decoder.counts.drafted == 3


@pytest.mark.parametrize("lookup", [True, None])
@pytest.mark.parametrize("window", [4, "auto"])
def test_lookup_needs_no_model(window, lookup, target, plain):
    assert run(target, options(lookup=lookup, window=window)).token_ids == plain().token_ids


def test_relaxed_tokens_say_what_the_target_would_have_said(target, plain):
    drafter = Scripted(plain().token_ids, DISTORTIONS["now and then wrong"])
    said = run(target, options(verify="random:rate=1"), drafter)
    relaxed = [piece for piece in said.pieces if piece.origin == "relaxed"]
    assert len(relaxed) == said.stats.relaxed_tokens > 0
    assert (said.stats.verification, said.stats.rule) == ("relaxed", "random:rate=1")
    assert said.stats.deficit_nats == pytest.approx(sum(piece.deficit_nats for piece in relaxed))
    tokens = [*PROMPT, *said.token_ids]
    for at, piece in enumerate(said.pieces):
        choice = int(predictions(target, tokens[: len(PROMPT) + at])[-1].argmax())
        assert piece.choice_id == choice
        if piece.origin == "relaxed":
            assert piece.token_id == piece.drafted_id != choice
            assert piece.instead_of == Tokenizer().decode([choice])
        elif piece.origin == "corrected":
            assert piece.instead_of == Tokenizer().decode([piece.drafted_id])


def test_acceptance_adds_up(target, plain):
    stats = run(
        target, options(), Scripted(plain().token_ids, DISTORTIONS["now and then wrong"])
    ).stats
    assert sum(stats.acceptance_histogram) == stats.loops
    assert (
        sum(kept * loops for kept, loops in enumerate(stats.acceptance_histogram))
        == stats.accepted_tokens
    )
    assert 0 < len(stats.acceptance_by_position) <= 4
    assert all(0 <= share <= 1 for share in stats.acceptance_by_position)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_text_may_end_inside_a_window(most, target, plain):
    drafter = Scripted(plain().token_ids, DISTORTIONS["always right"])
    said = run(target, options(max_new_tokens=most, window=16), drafter)
    assert said.token_ids == plain().token_ids[:most]


def test_prompts_that_cannot_be_are_refused():
    with pytest.raises(RequestError, match="at least one token"):
        TextSequence(models(), [], options())
    with pytest.raises(PromptTooLong):
        TextSequence(models(), [5] * 500, options())
