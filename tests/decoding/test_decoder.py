"""Speculative decoding gives what plain decoding gives, whatever is drafted and however the frames fall.

A chain is simulated: it places every window by the rule of `swarm.wire.stream`, keeps the tokens as
its KV, and predicts by a function of the whole prefix, so that one wrong token anywhere shows.
"""

import zlib
from collections import deque
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarm.decoding.decoder import Counts, Decoder, UnexpectedResult, Window
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Decision
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.wire.stream import Stream

VOCABULARY = 6
STOP = 0
GREEDY = Strict(Sampling())


class Target:
    """A deterministic model without a pattern. One that never stops lets lengths be tested."""

    def __init__(self, salt, stops=True):
        self.salt, self.stops = salt, stops

    def after(self, prefix):
        value = zlib.crc32(bytes(prefix), self.salt)
        return value % 20 % VOCABULARY if self.stops else 1 + value % (VOCABULARY - 1)

    def plain(self, prompt, max_new_tokens):
        """Plain decoding, without any of the machinery."""
        new = []
        while len(new) < max_new_tokens and STOP not in new:
            new.append(self.after([*prompt, *new]))
        return new


class Chain:
    """The peers: frames are admitted and computed in order, and answered in order."""

    def __init__(self, target):
        self.target = target
        self.stream = Stream()
        self.kv = []
        self.answers = deque()

    def send(self, window: Window):
        assert self.stream.admit(window.epoch, window.start, len(window.tokens))
        self.kv[window.start :] = window.tokens
        assert len(self.kv) == self.stream.length
        wanted = range(len(self.kv) - window.tail, len(self.kv))
        choices = [self.target.after(self.kv[: i + 1]) for i in wanted]
        logits = torch.zeros(len(choices), VOCABULARY)
        logits[range(len(choices)), choices] = 1.0
        self.answers.append((window.epoch, window.start, len(window.tokens), logits))


def draft(target, sequence, kind, count):
    """Drafted tokens: those that the target would choose, none of them, or a mixture."""
    drafted = []
    for i in range(count):
        right = target.after([*sequence, *drafted])
        wrong = 1 + right % (VOCABULARY - 1)
        noise = zlib.crc32(bytes([*sequence, *drafted]), 99)
        drafted.append(
            {
                "right": right,
                "wrong": wrong,
                "mostly": wrong if noise % 4 == 0 else right,
                "random": noise % VOCABULARY,
                "stop": STOP if i == count // 2 else right,
            }[kind]
        )
    return drafted


KINDS = ["right", "wrong", "mostly", "random", "stop"]


@st.composite
def setups(draw):
    window = draw(st.integers(0, 16))
    prompt = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60))
    target = Target(draw(st.integers(0, 1000)), draw(st.booleans()))
    settings = {
        "max_new_tokens": draw(st.integers(1, 40)),
        "window": window,
        "chunk": window + draw(st.integers(1, 20)),
        "depth": draw(st.sampled_from([1, 1, 2, 3, 5])),
    }
    return target, prompt, settings


def guesses(tokens):
    return [Drafted(token) for token in tokens]


def path_of(decoder):
    return [guess.token for guess in decoder.path]


def totals(counts):
    """What is counted over the whole text, without what is counted by place."""
    return replace(counts, judged_at=[], kept_at=[], histogram=[])


def decoder_for(prompt, **settings):
    return Decoder(prompt, GREEDY, stop_ids=frozenset({STOP}), **settings)


def propose(decoder, target, kind, count):
    """Propose up to ``count`` tokens, and check that what fits is taken."""
    room, before = decoder.room, path_of(decoder)
    drafted = draft(target, [*decoder.tokens, *before], kind, count)
    decoder.propose(guesses(drafted))
    fitting = drafted[:room]
    taken = fitting[: fitting.index(STOP) + 1] if STOP in fitting else fitting
    assert path_of(decoder) == [*before, *taken]


def receive(decoder, chain):
    """Deliver the next answer, and check that every judgement is the target's own word."""
    known = len(decoder.tokens)
    answer = chain.answers.popleft()
    decisions = decoder.receive(*answer)
    assert decoder.tokens[known:] == [decision.token for decision in decisions]
    for i, decision in enumerate(decisions):
        assert decision.token == chain.target.after(decoder.tokens[: known + i])
    return decisions, answer


def run(decoder, chain, kinds=("right",), longer=0):
    """The loop of a generation: draft, send, judge. Every turn must find something to wait for."""
    decisions = []
    turn = 0
    while not decoder.finish_reason:
        propose(decoder, chain.target, kinds[turn % len(kinds)], decoder.room + longer)
        while window := decoder.next_window():
            chain.send(window)
        assert chain.answers, "nothing to draft, nothing to send, nothing to wait for"
        decisions += receive(decoder, chain)[0]
        turn += 1
    return decisions


def check_the_end(decoder, chain, prompt, max_new_tokens):
    expected = chain.target.plain(prompt, max_new_tokens)
    assert decoder.tokens == [*prompt, *expected]
    assert decoder.finish_reason == ("stop" if expected[-1] == STOP else "length")
    assert (decoder.room, decoder.next_window()) == (0, None)


@settings(max_examples=300, deadline=None)
@given(setups(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=5), st.sampled_from([0, 0, 7]))
def test_the_output_is_that_of_plain_decoding(setup, kinds, longer):
    target, prompt, settings = setup
    decoder, chain = decoder_for(prompt, **settings), Chain(target)
    decisions = run(decoder, chain, kinds, longer)
    check_the_end(decoder, chain, prompt, settings["max_new_tokens"])
    counts = decoder.counts
    assert counts.accepted == sum(decision.kept for decision in decisions)
    assert counts.rejected == sum(decision.origin == "corrected" for decision in decisions)
    assert counts.accepted + counts.rejected <= counts.drafted


class DecoderAgainstChain(RuleBasedStateMachine):
    """Drafts, frames and answers in any interleaving that a client could bring about."""

    @initialize(setup=setups())
    def begin(self, setup):
        self.target, self.prompt, self.settings = setup
        self.decoder, self.chain = decoder_for(self.prompt, **self.settings), Chain(self.target)
        self.taken = self.judged = 0
        self.decisions = []
        self.last_answer = None

    @rule(kind=st.sampled_from(KINDS), count=st.integers(0, 20))
    def draft(self, kind, count):
        before = len(self.decoder.path)
        propose(self.decoder, self.target, kind, count)
        self.taken += len(self.decoder.path) - before

    @rule()
    def send(self):
        decoder = self.decoder
        committed, epoch = len(decoder.tokens), decoder.epoch
        if window := decoder.next_window():
            assert window.epoch == epoch
            assert window.tokens == tuple(decoder.sequence[window.start :][: len(window.tokens)])
            assert 1 <= len(window.tokens) <= decoder.chunk
            assert window.start + len(window.tokens) - max(window.start, committed) <= decoder.window
            # Predictions are asked for from the last committed token on, and never twice.
            first_judged = window.start + len(window.tokens) - window.tail
            assert not window.tail or first_judged == max(window.start, committed - 1)
            self.chain.send(window)

    @precondition(lambda self: self.chain.answers)
    @rule()
    def answer(self):
        fresh = self.chain.answers[0][0] == self.decoder.epoch and not self.decoder.finish_reason
        decisions, self.last_answer = receive(self.decoder, self.chain)
        assert bool(decisions) == (fresh and len(self.last_answer[3]) > 0)
        self.decisions += decisions
        self.judged += bool(decisions)

    @precondition(lambda self: self.last_answer)
    @rule()
    def answer_again(self):
        before = list(self.decoder.tokens)
        try:
            assert self.decoder.receive(*self.last_answer) == []
        except UnexpectedResult:
            assert self.last_answer[0] == self.decoder.epoch
        assert self.decoder.tokens == before

    @invariant()
    def what_is_committed_is_plain_decoding(self):
        new = self.decoder.tokens[len(self.prompt) :]
        assert new == self.target.plain(self.prompt, len(new))

    @invariant()
    def the_chain_holds_what_was_sent(self):
        sequence = self.decoder.sequence
        assert self.chain.kv[: self.decoder.sent] == sequence[: self.decoder.sent]
        assert self.decoder.sent <= len(self.chain.kv)

    @invariant()
    def counts_add_up(self):
        counts = self.decoder.counts
        assert totals(counts) == Counts(
            loops=self.judged,
            drafted=self.taken,
            accepted=sum(decision.kept for decision in self.decisions),
            rejected=sum(decision.origin == "corrected" for decision in self.decisions),
            flushes=self.decoder.epoch,
        )
        assert counts.accepted + counts.rejected + len(self.decoder.path) <= counts.drafted
        assert sum(counts.histogram) == counts.loops
        assert sum(kept * loops for kept, loops in enumerate(counts.histogram)) == counts.accepted
        assert (sum(counts.judged_at), sum(counts.kept_at)) == (counts.accepted + counts.rejected, counts.accepted)
        assert all(kept >= judged for kept, judged in zip(counts.kept_at, counts.judged_at[1:], strict=False))

    @invariant()
    def there_is_always_a_way_on(self):
        unsent = self.decoder.sent < len(self.decoder.tokens) + len(self.decoder.path)
        awaited = any(epoch == self.decoder.epoch for epoch, *_ in self.chain.answers)
        assert self.decoder.finish_reason or unsent or awaited

    def teardown(self):
        if hasattr(self, "decoder"):
            run(self.decoder, self.chain, ("mostly",))
            check_the_end(self.decoder, self.chain, self.prompt, self.settings["max_new_tokens"])


TestDecoderAgainstChain = DecoderAgainstChain.TestCase
TestDecoderAgainstChain.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def answer(decoder, window, *choices):
    """Answer ``window`` with the target choosing ``choices``, and anything after them."""
    logits = torch.zeros(window.tail, VOCABULARY)
    for row, choice in zip(logits, choices, strict=False):
        row[choice] = 1.0
    return decoder.receive(window.epoch, window.start, len(window.tokens), logits)


def test_plain_decoding_takes_one_loop_a_token():
    target = Target(1, stops=False)
    decoder = decoder_for([1, 2, 3], max_new_tokens=9)
    run(decoder, Chain(target))
    assert totals(decoder.counts) == Counts(loops=9)


def test_a_perfect_draft_commits_a_window_and_one_more_a_loop():
    decoder = decoder_for([1, 2, 3], max_new_tokens=18, window=8)
    run(decoder, Chain(Target(1, stops=False)))
    assert totals(decoder.counts) == Counts(loops=2, drafted=16, accepted=16)


def test_a_draft_that_is_always_wrong_costs_no_token():
    decoder = decoder_for([1, 2, 3], max_new_tokens=5, window=2)
    run(decoder, Chain(Target(1, stops=False)), ("wrong",))
    # At the last token there is nothing left to draft.
    assert totals(decoder.counts) == Counts(loops=5, drafted=7, rejected=4, flushes=4)


def test_a_long_prompt_travels_in_chunks_that_do_not_wait_for_each_other():
    decoder = decoder_for([1, 2, 3, 4, 5, 1, 2], max_new_tokens=5, chunk=3)
    windows = [decoder.next_window() for _ in range(4)]
    assert windows == [Window(0, 0, (1, 2, 3), 0), Window(0, 3, (4, 5, 1), 0), Window(0, 6, (2,), 1), None]
    assert answer(decoder, windows[0]) == answer(decoder, windows[1]) == []
    assert answer(decoder, windows[2], 4) == [Decision(4, None)]
    assert decoder.next_window() == Window(0, 7, (4,), 1)


def test_a_miss_flushes_what_the_chain_holds_beyond_it():
    decoder = decoder_for([1, 2], max_new_tokens=9, window=4)
    decoder.propose(guesses([3, 4, 5, 1]))
    window = decoder.next_window()
    assert window == Window(0, 0, (1, 2, 3, 4, 5, 1), 5)
    assert answer(decoder, window, 3, 2) == [Decision(3, 3), Decision(2, 4)]
    assert (decoder.tokens, path_of(decoder)) == ([1, 2, 3, 2], [])
    assert decoder.next_window() == Window(1, 3, (2,), 1)


def test_a_stop_token_within_a_window_ends_the_text_there():
    decoder = decoder_for([1, 2], max_new_tokens=9, window=4)
    decoder.propose(guesses([3, STOP, 5, 1]))
    assert path_of(decoder) == [3, STOP]
    assert decoder.room == 0
    decisions = answer(decoder, decoder.next_window(), 3, STOP, 4)
    assert [decision.token for decision in decisions] == [3, STOP]
    assert (decoder.finish_reason, decoder.next_window()) == ("stop", None)


def test_the_last_token_is_not_drafted_because_the_target_brings_it():
    decoder = decoder_for([1, 2], max_new_tokens=4, window=8)
    assert decoder.room == 3
    assert decoder_for([1, 2], max_new_tokens=1, window=8).room == 0


def test_an_exact_chunk_of_prompt_leaves_the_drafts_for_the_next_frame():
    decoder = decoder_for([1, 2, 3], max_new_tokens=9, window=2, chunk=3)
    decoder.propose(guesses([4, 5]))
    window = decoder.next_window()
    assert window == Window(0, 0, (1, 2, 3), 1)
    assert answer(decoder, window, 4) == [Decision(4, 4)]
    assert decoder.next_window() == Window(0, 3, (4, 5), 2)
    assert totals(decoder.counts) == Counts(loops=1, drafted=2, accepted=1)


def test_a_miss_on_a_draft_that_was_not_sent_flushes_nothing():
    decoder = decoder_for([1, 2, 3], max_new_tokens=9, window=2, chunk=3)
    decoder.propose(guesses([4, 5]))
    assert answer(decoder, decoder.next_window(), 1) == [Decision(1, 4)]
    assert decoder.next_window() == Window(0, 3, (1,), 1)
    assert totals(decoder.counts) == Counts(loops=1, drafted=2, rejected=1)


def test_at_depth_windows_go_out_before_the_answers_come():
    decoder = decoder_for([1], max_new_tokens=20, window=2, depth=2)
    decoder.propose(guesses([2, 3]))
    first = decoder.next_window()
    decoder.propose(guesses([4, 5]))
    second = decoder.next_window()
    assert (first, second) == (Window(0, 0, (1, 2, 3), 3), Window(0, 3, (4, 5), 2))
    assert (decoder.room, decoder.next_window()) == (0, None)
    assert answer(decoder, first, 2, 3, 4) == [Decision(2, 2), Decision(3, 3), Decision(4, 4)]
    assert answer(decoder, second, 5, 1) == [Decision(5, 5), Decision(1, None)]


def test_at_depth_the_answers_to_flushed_windows_are_ignored():
    decoder = decoder_for([1], max_new_tokens=20, window=2, depth=2)
    decoder.propose(guesses([2, 3]))
    first = decoder.next_window()
    decoder.propose(guesses([4, 5]))
    second = decoder.next_window()
    assert answer(decoder, first, 5) == [Decision(5, 2)]
    assert answer(decoder, second, 5, 1) == []
    assert decoder.next_window() == Window(1, 1, (5,), 1)


def test_the_rule_sees_no_more_drafts_than_there_are_predictions():
    class Recorder:
        def judge(self, logits, history, drafted):
            self.seen = len(logits), list(history), [guess.token for guess in drafted]
            return GREEDY.judge(logits, history, drafted)

    recorder = Recorder()
    decoder = Decoder([1], recorder, max_new_tokens=20, window=2, depth=2)
    decoder.propose(guesses([2, 3]))
    window = decoder.next_window()
    decoder.propose(guesses([4, 5]))
    answer(decoder, window, 2, 3, 4)
    assert recorder.seen == (3, [1], [2, 3, 4])


def test_an_answer_to_no_frame_of_ours_is_the_chains_fault():
    decoder = decoder_for([1, 2], max_new_tokens=9)
    logits = torch.zeros(1, VOCABULARY)
    with pytest.raises(UnexpectedResult, match=r"= \(0, 2, 1\) where None was due"):
        decoder.receive(0, 0, 2, logits)
    window = decoder.next_window()
    for wrong in [(0, 1, 2, logits), (0, 0, 1, logits), (1, 0, 2, logits), (0, 0, 2, logits[:0])]:
        with pytest.raises(UnexpectedResult) as caught:
            decoder.receive(*wrong)
        assert caught.value.expected == (0, 2, 1)
    assert len(answer(decoder, window, 3)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": []},
        {"max_new_tokens": 0},
        {"window": -1},
        {"window": 4, "chunk": 4},
        {"chunk": 0},
        {"depth": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    settings = {"prompt": [1], "max_new_tokens": 1, **wrong}
    with pytest.raises(ValueError, match="must be positive"):
        decoder_for(**settings)
