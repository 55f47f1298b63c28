"""A deterministic target, drafters of every kind, and the loop of a generation: no model."""

import zlib
from dataclasses import replace

import torch
from hypothesis import strategies as st

from helpers.simulated_chain import SimulatedChain
from swarm.decoding.decoder import Decoder
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling

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
    """So many tokens behind each of the nodes. Each source has a kind of its own."""
    shift = {Source.MODEL: 0, Source.COPY: 2, Source.FEATURES: 4, Source.FORCED: 0}[ask.source]
    kind = KINDS[(KINDS.index(kind) + shift) % len(KINDS)]
    lines = [([*ask.text, *path], []) for path in ask.paths]
    for text, drafted in lines:
        for _ in range(count):
            drafted.append(replace(guess(target, text, kind), source=ask.source, matched=8))
            text.append(drafted[-1].token)
    return [drafted for _, drafted in lines]


KINDS = ["right", "wrong", "second", "mostly", "random", "stop"]
sources = st.sampled_from(
    [(Source.MODEL,), (Source.COPY,), (Source.COPY, Source.MODEL), tuple(Source)]
)
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
        {
            "max_new_tokens": draw(st.integers(1, 40)),
            "chunk": draw(st.integers(9, 30)),
            "sources": draw(sources),
        },
    )


def decoder_for(prompt, plan=None, rule=GREEDY, *, sources=(Source.MODEL,), **settings):
    decoder = Decoder(prompt, rule, stop_ids=frozenset({STOP}), **settings)
    decoder.sources = sources
    decoder.plan = plan or SpeculationPlan()
    return decoder


def guesses(tokens, *others):
    """Drafted tokens, surer than not, each with the same other choices."""
    return [Drafted(token, None, 0.9, tuple((other, 0.05) for other in others)) for token in tokens]


def copies(*tokens, matched=8):
    return [
        Drafted(token, source=Source.COPY, matched=matched + place)
        for place, token in enumerate(tokens)
    ]


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


def by_logits(decoder, nodes, logits):
    return decoder.judge(nodes, logits)


def by_choices(decoder, nodes, logits):
    """Tell the decoder choices alone, and logits where it wants them."""
    for node, row in zip(nodes, logits, strict=True):
        node.output = row
    choices = logits.argmax(dim=-1).tolist()
    decisions = decoder.judge(nodes, [None] * len(nodes), choices=choices)
    while node := decoder.wanted:
        decisions += decoder.judge([node], [node.output])
    return decisions


def receive(decoder, chain, target, judge=by_logits):
    """Deliver the next answer, and check that every judgement is the target's own word."""
    known = len(decoder.tokens)
    windows, texts = chain.answers.popleft()
    taken = decoder.take(windows)
    decisions = judge(
        decoder, [node for _, node in taken], target.logits([texts[row] for row, _ in taken])
    )
    assert decoder.tokens[known:] == [decision.token for decision in decisions]
    for i, decision in enumerate(decisions):
        right = target.after(decoder.tokens[: known + i])
        assert right == (decision.token if decision.choice is None else decision.choice)
    return decisions


def run(decoder, target, kinds=("right",), longer=0, chain=None, judge=by_logits):
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
        decisions += receive(decoder, chain, target, judge)
        turn += 1
    return decisions


def check_the_end(decoder, target, prompt, max_new_tokens):
    expected = target.plain(prompt, max_new_tokens)
    assert decoder.tokens == [*prompt, *expected]
    assert decoder.finish_reason == ("stop" if expected[-1] == STOP else "length")
    assert (decoder.ask(), decoder.next_window(), decoder.urgent) == (None, None, False)
