"""What a peer says of itself."""

import pytest
import torch

from peers.compute.cache_budget import CacheBudget
from peers.compute.memory import in_words
from peers.offer import Offer, PeerFacts
from swarm.errors import ConfigError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.network.dht.records import neighbour_key

ADDRESSES = ("192.0.2.1:31330", "192.0.2.2:31330")


@pytest.fixture
def facts(tiny: Checkpoint) -> PeerFacts:
    return PeerFacts(Identity.generate(), "test", tiny, torch.float16, torch.device("cpu"))


def test_a_record_says_what_is_offered_now(facts: PeerFacts) -> None:
    offer = Offer((1, 3))
    first = offer.record(facts, ADDRESSES)
    assert (first.state, first.free_cache_tokens, first.tokens_per_second) == ("joining", 0, 0.0)
    offer.state, offer.tokens_per_second = "online", 12.5
    offer.budget = CacheBudget(100)
    offer.budget.reserve(40)
    record = offer.record(
        facts, ADDRESSES, ((neighbour_key(Identity.generate().peer_id), 31),), queue_ms=2.0
    )
    assert (record.first_layer, record.last_layer, record.dtype) == (1, 3, "float16")
    assert (record.state, record.free_cache_tokens) == ("online", 60)
    assert (record.tokens_per_second, record.queue_ms) == (12.5, 2.0)
    assert (record.peer_id, record.addresses) == (facts.identity.peer_id, ADDRESSES)
    assert record.fingerprint == facts.checkpoint.fingerprint


def test_an_address_that_no_record_can_carry_is_named(facts: PeerFacts) -> None:
    with pytest.raises(ConfigError, match="cannot be announced"):
        Offer((0, 1)).record(facts, ("no address",))


def test_the_operator_reads_what_is_served_and_where(facts: PeerFacts, tiny: Checkpoint) -> None:
    span = Span.load(tiny, 1, 3)
    offer = Offer((1, 3), "online", 12.5, CacheBudget(100))
    event = offer.describe(facts, span, ADDRESSES)
    assert event.sentence.startswith(f"serving layers 1:3 of {tiny.num_layers} of {tiny.name} (")
    assert ", cpu, float16, 12 tokens/s, " in event.sentence
    assert f"at {ADDRESSES[0]} and {ADDRESSES[1]} as {facts.identity.peer_id}" in event.sentence
    assert event.facts["layers"] == (1, 3)
    assert event.facts["weights_bytes"] == span.nbytes
    assert event.facts["addresses"] == ADDRESSES
    assert (event.facts["head"], event.facts["head_bytes"]) == (False, 0)


def test_the_memory_of_the_head_is_told_beside_that_of_the_layers(
    facts: PeerFacts, tiny: Checkpoint
) -> None:
    head = Head.load(tiny)
    assert head.nbytes == pytest.approx(tiny.vocab_size * tiny.hidden_size * 4, rel=0.05)
    offer = Offer((3, 4), "online", 12.5, CacheBudget(100), head.nbytes)
    event = offer.describe(facts, Span.load(tiny, 3, 4), ADDRESSES)
    assert f"tokens, with the head of {in_words(head.nbytes)})" in event.sentence
    assert (event.facts["head"], event.facts["head_bytes"]) == (True, head.nbytes)
