"""Speculative decoding gives what plain decoding gives, whatever is drafted and however frames and
answers fall."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helpers.decoder_bench import (
    KINDS,
    VOCABULARY,
    by_choices,
    by_logits,
    check_the_end,
    decoder_for,
    draft,
    plans,
    receive,
    run,
    setups,
    sources,
)
from helpers.simulated_chain import SimulatedChain
from swarm.decoding.decoder import MAX_SENT_AHEAD
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.chance import Chance
from swarm.decoding.rules.relaxed import Relaxed
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.decoding.windows import Window


@settings(max_examples=100, deadline=None)
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


@settings(max_examples=80, deadline=None)
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


@settings(max_examples=100, deadline=None)
@given(setups(), plans, st.lists(st.sampled_from(KINDS), min_size=1, max_size=5), st.booleans())
def test_choices_alone_decide_what_logits_decide(setup, plan, kinds, relaxed):
    """Logits are wanted only where a rule may accept a miss."""
    target, prompt, settings = setup
    outcomes = []
    for judge in (by_logits, by_choices):
        rule = Relaxed(Sampling(), Chance(0.5)) if relaxed else Strict(Sampling())
        decoder = decoder_for(prompt, plan, rule, **settings)
        decisions = run(decoder, target, kinds, judge=judge)
        outcomes.append((decoder.tokens, decisions, decoder.counts))
        if judge is by_choices:
            told = [decision.logits is not None for decision in decisions]
            missed = [
                decision.drafted not in (None, decision.token) or decision.choice is not None
                for decision in decisions
            ]
            assert told == (missed if relaxed else [False] * len(decisions))
    assert outcomes[0] == outcomes[1]


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
        self.every_source = set(self.decoder.sources)

    @rule(plan=plans)
    def change_the_plan(self, plan):
        self.decoder.plan = plan

    @rule(sources=sources)
    def change_the_sources(self, sources):
        self.decoder.sources = sources
        self.every_source |= set(sources)

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
            assert self.asked.source in self.decoder.sources
            assert self.asked.source.is_free or 1 in (self.asked.count, len(self.asked.nodes)), (
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
        sources = counts.acceptance.by_source
        assert {each.source for each in sources} <= {each.value for each in self.every_source}
        right = sum(sum(each.accepted) for each in sources)  # whether a rule judged it or not
        assert counts.accepted <= right <= len(self.decisions) * len(self.every_source)
        assert all(
            kept <= judged
            for each in sources
            for kept, judged in zip(each.accepted, each.judged, strict=True)
        )

    @invariant()
    def the_tree_knows_what_was_sent_and_what_may_grow(self):
        tree = self.decoder.tree
        assert tree.unsent == [node for node in tree.nodes if not node.serial]
        assert tree.sent == sum(node.serial > 0 for node in tree.nodes)
        for source in self.decoder.sources:
            for node in tree.unexplored(source, 0.0):
                assert node is tree.tip or node in tree.nodes
                assert source not in node.proposals

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
TestDecoderAgainstChain.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@settings(max_examples=80, deadline=None)
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
