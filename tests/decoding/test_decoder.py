"""Speculative decoding gives what plain decoding gives, whatever is drafted and however frames and
answers fall."""

import zlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helpers.simulated_chain import SimulatedChain
from swarm.decoding.decoder import MAX_SENT_AHEAD, Decoder
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.rule import Decision
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.decoding.windows import ResumePoint, Window

VOCABULARY = 6
STOP = 0
GREEDY = Strict(Sampling())
STREAM = SpeculationPlan(window=4, depth=8, branches=3)


class Target:
    """A deterministic model without a pattern, a function of the whole text.

    One that never stops tests lengths.
    """

    def __init__(self, salt, stops=True):
        self.salt, self.stops = salt, stops

    def after(self, text):
        value = zlib.crc32(bytes(text), self.salt)
        return value % 20 % VOCABULARY if self.stops else 1 + value % (VOCABULARY - 1)

    def plain(self, prompt, max_new_tokens):
        """Plain decoding, without any of the machinery."""
        new = []
        while len(new) < max_new_tokens and STOP not in new:
            new.append(self.after([*prompt, *new]))
        return new

    def logits(self, texts):
        choices = [self.after(text) for text in texts]
        return torch.nn.functional.one_hot(
            torch.tensor(choices, dtype=torch.long), VOCABULARY
        ).float()


def guess(target, text, kind):
    """One drafted token with two others: right, wrong, or right as the second choice."""
    right = target.after(text)
    wrong = [1 + (right + i) % (VOCABULARY - 1) for i in range(3)]
    chosen = {"mostly": "second", "random": "wrong"}.get(kind, kind)
    if kind in ("mostly", "random") and zlib.crc32(bytes(text), 99) % 4:
        chosen = "right"
    token, *others = {
        "right": [right, *wrong],
        "wrong": wrong,
        "second": [wrong[0], right, wrong[1]],
        "stop": [STOP, right],
    }[chosen]
    return Drafted(token, None, 0.8, tuple((other, 0.1) for other in others if other != token))


def draft(target, ask, kind, count):
    """So many tokens behind each of the nodes."""
    lines = [([*ask.text, *path], []) for path in ask.paths]
    for text, drafted in lines:
        for _ in range(count):
            drafted.append(guess(target, text, kind))
            text.append(drafted[-1].token)
    return [drafted for _, drafted in lines]


KINDS = ["right", "wrong", "second", "mostly", "random", "stop"]
plans = st.builds(
    SpeculationPlan,
    window=st.integers(0, 8),
    depth=st.sampled_from([1, 1, 2, 3, 64]),
    branches=st.integers(1, 3),
    leaves=st.sampled_from([1, 1, 2, 5]),
    least_chance=st.sampled_from([0.0, 0.05, 0.5]),
)


@st.composite
def setups(draw):
    prompt = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60))
    target = Target(draw(st.integers(0, 1000)), draw(st.booleans()))
    return (
        target,
        prompt,
        {"max_new_tokens": draw(st.integers(1, 40)), "chunk": draw(st.integers(9, 30))},
    )


def decoder_for(prompt, plan=None, **settings):
    decoder = Decoder(prompt, GREEDY, stop_ids=frozenset({STOP}), **settings)
    decoder.plan = plan or SpeculationPlan()
    return decoder


def receive(decoder, chain, target):
    """Deliver the next answer, and check that every judgement is the target's own word."""
    known = len(decoder.tokens)
    windows, texts = chain.answers.popleft()
    taken = decoder.take(windows)
    decisions = decoder.judge(
        [node for _, node in taken], target.logits([texts[row] for row, _ in taken])
    )
    assert decoder.tokens[known:] == [decision.token for decision in decisions]
    for i, decision in enumerate(decisions):
        assert decision.token == target.after(decoder.tokens[: known + i])
    return decisions


def run(decoder, target, kinds=("right",), longer=0, chain=None):
    """The loop of a generation: draft, send, judge. Every turn must find something to wait for."""
    chain, decisions, turn = chain or SimulatedChain(), [], 0
    while not decoder.finish_reason:
        asks = 0
        while (ask := decoder.ask()) and asks < 12:
            decoder.propose(ask, draft(target, ask, kinds[turn % len(kinds)], ask.count + longer))
            asks += 1
        if ask:
            decoder.propose(ask, [])
        while window := decoder.next_window():
            chain.send(window)
        chain.flow()
        assert chain.answers, "nothing to draft, nothing to send, nothing to wait for"
        decisions += receive(decoder, chain, target)
        turn += 1
    return decisions


def check_the_end(decoder, target, prompt, max_new_tokens):
    expected = target.plain(prompt, max_new_tokens)
    assert decoder.tokens == [*prompt, *expected]
    assert decoder.finish_reason == ("stop" if expected[-1] == STOP else "length")
    assert (decoder.ask(), decoder.next_window(), decoder.urgent) == (None, None, False)


@settings(max_examples=300, deadline=None)
@given(
    setups(),
    plans,
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.sampled_from([0, 0, 7]),
)
def test_the_output_is_that_of_plain_decoding(setup, plan, kinds, longer):
    target, prompt, settings = setup
    decoder = decoder_for(prompt, plan, **settings)
    decisions = run(decoder, target, kinds, longer)
    check_the_end(decoder, target, prompt, settings["max_new_tokens"])
    counts = decoder.counts
    assert counts.accepted == sum(decision.kept for decision in decisions)
    assert counts.branched == sum(decision.origin == "branch" for decision in decisions)
    assert counts.rejected == sum(
        decision.origin in ("branch", "corrected") for decision in decisions
    )
    assert counts.held <= len(decisions) + 1
    assert counts.held <= counts.sent


@settings(max_examples=200, deadline=None)
@given(
    setups(),
    plans,
    st.sampled_from(KINDS),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=50),
)
def test_another_text_goes_on_from_what_the_chain_holds(setup, plan, kind, remark):
    target, prompt, settings = setup
    chain, first = SimulatedChain(), decoder_for(prompt, plan, **settings)
    run(first, target, [kind], chain=chain)
    held = first.held
    chain.cancel(held.epoch)
    chain.answers.clear()
    sent = len(chain.sent)
    further = [*first.tokens[:-1], *remark]  # the last token need not be the same one
    second = decoder_for(further, plan, **settings, held=held)
    run(second, target, [kind], chain=chain)
    check_the_end(second, target, further, settings["max_new_tokens"])
    assert (
        min(window.position for window in chain.sent[sent:])
        == len(held.tokens)
        == len(first.tokens) - 1
    )


class DecoderAgainstChain(RuleBasedStateMachine):
    """Drafts, frames and answers in any interleaving that a client could bring about, and plans
    that change."""

    @initialize(setup=setups(), plan=plans, peers=st.integers(1, 4))
    def begin(self, setup, plan, peers):
        self.target, self.prompt, self.settings = setup
        self.decoder, self.chain = (
            decoder_for(self.prompt, plan, **self.settings),
            SimulatedChain(peers),
        )
        self.asked, self.resumed, self.known = None, 0, 0
        self.decisions = []

    @rule(plan=plans)
    def change_the_plan(self, plan):
        self.decoder.plan = plan

    @precondition(lambda self: not self.asked)
    @rule()
    def ask(self):
        self.asked = self.decoder.ask()
        if self.asked:
            assert list(self.asked.text) == self.decoder.tokens
            assert [self.decoder.tree.path(node) for node in self.asked.nodes] == list(
                map(list, self.asked.paths)
            )
            assert (
                1 <= len(set(self.asked.nodes)) == len(self.asked.nodes) <= self.decoder.plan.leaves
            )
            assert self.asked.count >= 1
            assert 1 in (self.asked.count, len(self.asked.nodes)), (
                "a line, or one token behind each of several"
            )
            assert self.decoder.ask() is None, "one question at a time"

    @precondition(lambda self: self.asked)
    @rule(kind=st.sampled_from(KINDS), count=st.integers(0, 6), told=st.integers(0, 5))
    def propose(self, kind, count, told):
        self.decoder.propose(self.asked, draft(self.target, self.asked, kind, count)[:told])
        self.asked = None

    @rule()
    def send(self):
        decoder = self.decoder
        if window := decoder.next_window():
            assert window.epoch == decoder.epoch
            assert 1 <= len(window.tokens) <= decoder.chunk
            assert window.first == (
                self.chain.sent[-1].first + len(self.chain.sent[-1].tokens)
                if self.chain.sent
                else 1
            )
            self.chain.send(window)
            # else all peers know of it by what they were told when some were replaced
            if window.epoch > self.known:
                self.known = window.epoch
                self.chain.cancel(window.epoch)
            assert sum(node.serial > 0 for node in decoder.tree.nodes) <= MAX_SENT_AHEAD

    @rule(number=st.integers(0, 3))
    def compute(self, number):
        if number < len(self.chain.peers) and self.chain.waiting[number]:
            self.chain.step(number)

    @precondition(lambda self: not self.decoder.finish_reason)
    @rule(failed=st.sets(st.integers(0, 3), min_size=1, max_size=3), cancelled=st.booleans())
    def replace_peers(self, failed, cancelled):
        resume = self.decoder.resume()
        self.resumed, self.known = self.resumed + 1, resume.epoch
        assert resume.epoch == self.decoder.epoch
        assert list(resume.tokens) in ([], self.decoder.tokens[:-1])
        self.chain.replace({number % len(self.chain.peers) for number in failed}, resume)
        if cancelled:
            self.chain.cancel(resume.epoch, replays=False)

    @precondition(lambda self: len(self.chain.answers) > 1)
    @rule()
    def merge(self):
        self.chain.merge()

    @precondition(lambda self: self.chain.answers)
    @rule()
    def answer(self):
        self.decisions += receive(self.decoder, self.chain, self.target)

    @invariant()
    def what_is_committed_is_plain_decoding(self):
        new = self.decoder.tokens[len(self.prompt) :]
        assert new == self.target.plain(self.prompt, len(new))

    @invariant()
    def counts_add_up(self):
        counts = self.decoder.counts
        assert counts.accepted == sum(decision.kept for decision in self.decisions)
        assert counts.flushes + self.resumed == self.decoder.epoch
        assert sum(counts.histogram) == counts.loops
        assert sum(kept * loops for kept, loops in enumerate(counts.histogram)) == counts.accepted
        assert (sum(counts.judged_at), sum(counts.kept_at)) == (
            counts.accepted + counts.rejected,
            counts.accepted,
        )
        assert all(
            kept >= judged
            for kept, judged in zip(counts.kept_at, counts.judged_at[1:], strict=False)
        )
        assert counts.held <= counts.sent

    @invariant()
    def the_tree_knows_what_was_sent_and_what_may_grow(self):
        tree = self.decoder.tree
        assert tree.unsent == [node for node in tree.nodes if not node.serial]
        assert tree.sent == sum(node.serial > 0 for node in tree.nodes)
        assert all(node is tree.tip or node in tree.nodes for node in tree.open)
        assert not any(node.children for node in tree.open)

    @invariant()
    def there_is_always_a_way_on(self):
        decoder, chain = self.decoder, self.chain
        unsent = decoder.urgent or self.asked
        flying = [
            frame for waiting in chain.waiting for frame in waiting if isinstance(frame, Window)
        ]
        awaited = any(window.epoch == decoder.epoch for window in flying)
        awaited = awaited or any(windows[0].epoch == decoder.epoch for windows, _ in chain.answers)
        assert decoder.finish_reason or unsent or awaited

    def teardown(self):
        if not hasattr(self, "decoder"):
            return
        if self.asked:
            self.decoder.propose(self.asked, [])
        self.decoder.plan = SpeculationPlan()
        while not self.decoder.finish_reason:
            while window := self.decoder.next_window():
                self.chain.send(window)
            self.chain.flow()
            receive(self.decoder, self.chain, self.target)
        check_the_end(self.decoder, self.target, self.prompt, self.settings["max_new_tokens"])


TestDecoderAgainstChain = DecoderAgainstChain.TestCase
TestDecoderAgainstChain.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@settings(max_examples=200, deadline=None)
@given(
    setups(),
    plans,
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.lists(st.sets(st.integers(0, 2), max_size=3), min_size=1, max_size=6),
)
def test_peers_that_forget_everything_change_nothing_of_what_is_said(setup, plan, kinds, failures):
    """They do so after some windows of each turn were sent, and part of the chain has computed
    them."""
    target, prompt, settings = setup
    decoder, chain = decoder_for(prompt, plan, **settings), SimulatedChain(3)
    turn = 0
    while not decoder.finish_reason:
        asks = 0
        while (ask := decoder.ask()) and asks < 4:
            decoder.propose(ask, draft(target, ask, kinds[turn % len(kinds)], ask.count))
            asks += 1
        decoder.withdraw()
        while window := decoder.next_window():
            chain.send(window)
        failed = failures[turn] if turn < len(failures) else set()
        if failed:
            for number in range(turn % 3):
                while chain.waiting[number]:
                    chain.step(number)
            chain.replace(failed, decoder.resume())
        else:
            chain.flow()
            while chain.answers and not decoder.finish_reason:
                receive(decoder, chain, target)
        turn += 1
    check_the_end(decoder, target, prompt, settings["max_new_tokens"])
    assert decoder.counts.held <= decoder.counts.sent


def guesses(tokens, *others):
    """Drafted tokens, surer than not, each with the same other choices."""
    return [Drafted(token, None, 0.9, tuple((other, 0.05) for other in others)) for token in tokens]


def propose(decoder, tokens, *others):
    """Answer what the decoder asks for, token by token if it asks so."""
    left = list(tokens)
    while left and (ask := decoder.ask()):
        decoder.propose(ask, [guesses(left[: ask.count], *others)])
        del left[: ask.count]


def answer(decoder, window, *choices):
    """Answer ``window`` with the target choosing ``choices``, and token 0 after them."""
    taken = decoder.take([window])
    logits = torch.zeros(window.tail, VOCABULARY)
    for row, choice in zip(logits, choices, strict=False):
        row[choice] = 1.0
    return decoder.judge([node for _, node in taken], logits[[row for row, _ in taken]])


def test_plain_decoding_takes_one_loop_a_token():
    decoder = decoder_for([1, 2, 3], max_new_tokens=9)
    run(decoder, Target(1, stops=False))
    counts = decoder.counts
    assert (counts.loops, counts.frames, counts.sent, counts.held, counts.drafted) == (
        9,
        9,
        9,
        9,
        0,
    )
    assert (counts.most_in_flight, counts.flushes, counts.waits) == (1, 0, 9)


def test_a_perfect_draft_commits_a_window_and_one_more_a_loop():
    decoder = decoder_for([1, 2, 3], SpeculationPlan(window=8), max_new_tokens=18)
    run(decoder, Target(1, stops=False))
    counts = decoder.counts
    assert (counts.loops, counts.drafted, counts.accepted, counts.waits) == (2, 16, 16, 2)


def test_a_draft_that_is_always_wrong_costs_no_token():
    decoder = decoder_for([1, 2, 3], SpeculationPlan(window=2), max_new_tokens=5)
    run(decoder, Target(1, stops=False), ("wrong",))
    # At the last token there is nothing left to draft.
    counts = decoder.counts
    assert (counts.loops, counts.drafted, counts.accepted, counts.rejected, counts.flushes) == (
        5,
        7,
        0,
        4,
        4,
    )


def test_a_long_prompt_travels_in_chunks_that_do_not_wait_for_each_other():
    decoder = decoder_for([1, 2, 3, 4, 5, 1, 2], max_new_tokens=5, chunk=3)
    windows = [decoder.next_window() for _ in range(4)]
    assert windows == [
        Window(0, 0, 1, (1, 2, 3), None, 0, 0),
        Window(0, 3, 4, (4, 5, 1), None, 0, 3),
        Window(0, 6, 7, (2,), None, 1, 6),
        None,
    ]
    assert answer(decoder, windows[0]) == answer(decoder, windows[1]) == []
    assert answer(decoder, windows[2], 4) == [Decision(4, None)]
    assert decoder.next_window() == Window(0, 7, 8, (4,), None, 1, 7)


def test_the_prompt_goes_out_at_once_where_frames_need_not_wait():
    decoder = decoder_for([1, 2], STREAM, max_new_tokens=9)
    assert decoder.next_window() == Window(0, 0, 1, (1, 2), None, 1, 0)
    propose(decoder, [3, 4])
    window = decoder.next_window()
    assert (window.tokens[0], window.root, window.first) == (3, 0, 3), (
        "only what was answered is a root"
    )


def test_a_window_that_is_waited_for_is_drafted_before_it_is_sent():
    decoder = decoder_for([1, 2], SpeculationPlan(window=3), max_new_tokens=9)
    assert decoder.next_window() is None
    ask = decoder.ask()
    assert (ask.text, ask.paths, ask.count) == ((1, 2), ((),), 3)
    assert decoder.next_window() is None
    decoder.propose(ask, [guesses([3, 4, 5])])
    assert decoder.next_window() == Window(0, 0, 1, (1, 2, 3, 4, 5), None, 4, 0)
    assert decoder.ask() is None


def test_a_drafter_that_has_nothing_to_say_holds_nothing_up():
    decoder = decoder_for([1, 2], SpeculationPlan(window=3), max_new_tokens=9)
    decoder.propose(decoder.ask(), [guesses([3])])
    decoder.propose(decoder.ask(), [])
    assert decoder.next_window().tokens == (1, 2, 3)


def test_a_miss_voids_what_the_chain_holds_beyond_it():
    decoder = decoder_for([1, 2], SpeculationPlan(window=4), max_new_tokens=9)
    propose(decoder, [3, 4, 5, 1])
    window = decoder.next_window()
    assert answer(decoder, window, 3, 2) == [Decision(3, 3), Decision(2, 4)]
    assert decoder.urgent
    propose(decoder, [5, 5, 5, 5])
    # The correction follows token 3, whose serial is 3; four more were sent after it.
    assert decoder.next_window() == Window(1, 3, 7, (2, 5, 5, 5, 5), (4, 1, 1, 1, 1), 5, 3)


def test_a_stop_token_within_a_window_ends_the_text_there():
    decoder = decoder_for([1, 2], SpeculationPlan(window=4), max_new_tokens=9)
    propose(decoder, [3, STOP, 5, 1])
    window = decoder.next_window()
    assert window.tokens == (1, 2, 3, STOP)
    decisions = answer(decoder, window, 3, STOP, 4)
    assert [decision.token for decision in decisions] == [3, STOP]
    assert (decoder.finish_reason, decoder.next_window()) == ("stop", None)


def test_the_last_token_is_not_drafted_because_the_target_brings_it():
    assert decoder_for([1, 2], SpeculationPlan(window=8), max_new_tokens=4).ask().count == 3
    assert decoder_for([1, 2], SpeculationPlan(window=8), max_new_tokens=1).ask() is None


def test_a_miss_on_a_draft_that_was_not_sent_voids_nothing():
    decoder = decoder_for([1, 2, 3], STREAM, max_new_tokens=9)
    window = decoder.next_window()
    propose(decoder, [4])
    assert answer(decoder, window, 1) == [Decision(1, 4)]
    assert decoder.next_window() == Window(0, 3, 4, (1,), None, 1, 3)
    assert decoder.counts.flushes == 0


def test_windows_go_out_before_the_answers_come():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    second = decoder.next_window()
    propose(decoder, [4])
    third = decoder.next_window()
    assert [window.tokens for window in (first, second, third)] == [(1,), (2, 3), (4,)]
    assert decoder.next_window() is None, "three frames are in flight"
    assert answer(decoder, first, 2) == [Decision(2, 2)]
    assert answer(decoder, second, 3, 4) == [Decision(3, 3), Decision(4, 4)]
    assert answer(decoder, third, 5) == [Decision(5, None)]
    assert decoder.counts.most_in_flight == 3


def test_answers_to_several_frames_may_come_as_one():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    taken = decoder.take([first, decoder.next_window()])
    assert [row for row, _ in taken] == [0, 1, 2]


def test_answers_of_an_older_epoch_are_ignored():
    decoder = decoder_for([1], SpeculationPlan(window=2, depth=3), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2, 3])
    second = decoder.next_window()
    assert answer(decoder, first, 5) == [Decision(5, 2)]
    assert decoder.take([second]) == []
    assert decoder.next_window() == Window(1, 1, 4, (5,), (3,), 1, 1)


def test_the_second_choice_goes_along_and_saves_the_stream():
    decoder = decoder_for([1], STREAM, max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2], 3)
    second = decoder.next_window()
    assert (second.tokens, second.parents) == ((2, 3), (1, 2)), "both follow token 1"
    assert answer(decoder, first, 3) == [Decision(3, 2, branch=True)]
    assert (decoder.counts.flushes, decoder.counts.waits, decoder.urgent) == (0, 1, False)
    ask = decoder.ask()
    assert (ask.text, ask.paths) == ((1, 3), ((),)), "the text goes on there"
    decoder.propose(ask, [guesses([4])])
    third = decoder.next_window()
    assert (third.root, third.tokens, third.parents) == (1, (4,), None)
    assert [row for row, _ in decoder.take([second])] == [1], (
        "the answer behind the other choice is worth nothing"
    )


def test_a_second_choice_that_was_not_sent_saves_nothing():
    decoder = decoder_for([1], SpeculationPlan(window=1, depth=8, branches=2), max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [2], 3)
    assert decoder.next_window().tokens == (2,)
    assert answer(decoder, first, 3) == [Decision(3, 2)]
    assert (decoder.counts.flushes, decoder.urgent, decoder.counts.branched) == (1, True, 0)


def test_the_likeliest_goes_first_and_the_unlikely_does_not_go():
    decoder = decoder_for(
        [1], SpeculationPlan(window=8, depth=8, branches=3, least_chance=0.3), max_new_tokens=20
    )
    decoder.next_window()
    decoder.propose(decoder.ask(), [[Drafted(2, None, 0.5, ((3, 0.45), (4, 0.05)))]])
    assert decoder.ask().paths == ((2,),)
    assert decoder.next_window().tokens == (2, 3)
    assert decoder.next_window() is None


def test_frames_follow_closely_after_a_turn_and_then_calm_down():
    decoder = decoder_for(
        [1], SpeculationPlan(window=1, depth=64, pace_ms=2.0, calm_ms=7.0), max_new_tokens=20
    )
    pauses = []
    for token in (2, 3, 4, 5):
        decoder.next_window()
        pauses.append(decoder.pause_ms)
        propose(decoder, [token])
    assert pauses == [2.0, 4.0, 6.0, 7.0]
    decoder.plan = SpeculationPlan(window=1, depth=64, pace_ms=30.0, calm_ms=7.0)
    assert decoder.pause_ms == 30.0, "never faster than the slowest stage"


def test_before_the_first_answer_the_prompt_is_sent_again():
    decoder = decoder_for([1, 2, 3, 4, 5, 1, 2], max_new_tokens=5, chunk=3)
    first, second = decoder.next_window(), decoder.next_window()
    answer(decoder, first)
    assert second.root == 3
    assert decoder.resume() == ResumePoint(1, 0, 6, ())
    assert [decoder.next_window() for _ in range(4)] == [
        Window(1, 0, 7, (1, 2, 3), (7, 1, 1), 0, 0),
        Window(1, 9, 10, (4, 5, 1), None, 0, 3),
        last := Window(1, 12, 13, (2,), None, 1, 6),
        None,
    ]
    assert decoder.take([second]) == [], "what was in flight is stale"
    for window in (
        Window(1, 0, 7, (1, 2, 3), (7, 1, 1), 0, 0),
        Window(1, 9, 10, (4, 5, 1), None, 0, 3),
    ):
        assert answer(decoder, window) == []
    assert answer(decoder, last, 4) == [Decision(4, None)]


def test_what_was_answered_is_replayed_and_what_was_not_is_sent_again():
    decoder = decoder_for([1, 2], STREAM, max_new_tokens=20)
    first = decoder.next_window()
    propose(decoder, [3, 4], 5)
    second = decoder.next_window()
    assert (second.root, second.tokens, second.parents) == (0, (3, 4, 5, 5), (1, 1, 3, 3))
    assert answer(decoder, first, 3) == [Decision(3, 3)]
    assert decoder.resume() == ResumePoint(1, 2, 6, (1, 2))
    assert decoder.urgent
    assert decoder.take([second]) == []
    again = decoder.next_window()
    assert (again.epoch, again.root, again.first) == (1, 2, 7)
    assert (again.tokens, again.parents) == ((3, 4, 5), (5, 1, 2)), (
        "the tip, and the drafts that may still follow it"
    )
    assert answer(decoder, again, 5)[0] == Decision(5, 4, branch=True)
    assert decoder.counts.held == 3, "the last token of the prompt, and two more, each but once"


def test_one_who_resumes_twice_goes_back_to_the_same_place():
    decoder = decoder_for([1, 2], max_new_tokens=9)
    answer(decoder, decoder.next_window(), 3)
    answer(decoder, decoder.next_window(), 4)
    assert decoder.resume() == ResumePoint(1, 3, 3, (1, 2, 3))
    assert decoder.resume() == ResumePoint(2, 3, 3, (1, 2, 3))
    assert decoder.next_window() == Window(2, 3, 4, (4,), None, 1, 3)


def test_a_question_that_was_withdrawn_may_be_asked_again():
    decoder = decoder_for([1], SpeculationPlan(window=2), max_new_tokens=20)
    late = decoder.ask()
    assert (decoder.ask(), decoder.next_window()) == (None, None)
    decoder.resume()
    ask = decoder.ask()
    assert ask == late
    decoder.propose(late, [guesses([4, 4])])
    assert decoder.tree.nodes == []
    decoder.propose(ask, [guesses([2, 3])])
    assert decoder.next_window().tokens == (1, 2, 3)


def test_a_draft_that_comes_too_late_is_dropped():
    decoder = decoder_for([1], STREAM, max_new_tokens=20)
    window = decoder.next_window()
    ask = decoder.ask()
    answer(decoder, window, 2)
    decoder.propose(ask, [guesses([3])])
    assert decoder.tree.nodes == []
    assert decoder.ask().text == (1, 2)


def test_the_likeliest_places_are_drafted_at_once():
    decoder = decoder_for([1], replace(STREAM, leaves=3), max_new_tokens=20)
    ask = decoder.ask()
    assert ask.paths == ((),), "there is but one place yet"
    decoder.propose(ask, [guesses([2], 3, 4)])
    ask = decoder.ask()
    assert (ask.text, ask.paths, ask.count) == ((1,), ((2,), (3,), (4,)), 1)
    decoder.propose(ask, [guesses([5], 1), [], guesses([1])])
    assert [decoder.tree.path(node) for node in decoder.tree.nodes[3:]] == [[2, 5], [2, 1], [4, 1]]
    assert decoder.ask().paths == ((2, 5), (2, 1), (4, 1)), (
        "behind token 3 the drafter has nothing to say"
    )


def test_of_several_drafts_those_that_come_too_late_are_dropped():
    decoder = decoder_for([1], replace(STREAM, leaves=3), max_new_tokens=20)
    window = decoder.next_window()
    decoder.propose(decoder.ask(), [guesses([2], 3, 4)])
    ask = decoder.ask()
    answer(decoder, window, 3)
    decoder.propose(ask, [guesses([5]), guesses([1]), guesses([5])])
    assert [decoder.tree.path(node) for node in decoder.tree.nodes] == [[1]]
    assert decoder.counts.drafted == 2


def test_a_window_that_is_waited_for_is_one_line():
    decoder = decoder_for([1], SpeculationPlan(window=6, branches=3, leaves=3), max_new_tokens=20)
    decoder.propose(decoder.ask(), [guesses([2], 3, 4)])
    ask = decoder.ask()
    assert (ask.paths, ask.count) == (((2,),), 3)


def test_the_rule_sees_no_more_drafts_than_there_are_predictions():
    class Recorder:
        exact = True

        def judge(self, logits, history, drafted):
            self.seen = len(logits), list(history), [guess.token for guess in drafted]
            return GREEDY.judge(logits, history, drafted)

    recorder = Recorder()
    decoder = Decoder([1], recorder, max_new_tokens=20)
    decoder.plan = STREAM
    window = decoder.next_window()
    propose(decoder, [2, 3])
    answer(decoder, window, 2)
    assert recorder.seen == (1, [1], [2])


@pytest.mark.parametrize("wrong", [{"prompt": []}, {"max_new_tokens": 0}, {"chunk": 1}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        decoder_for(**{"prompt": [1], "max_new_tokens": 1, **wrong})
