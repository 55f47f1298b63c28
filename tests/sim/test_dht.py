from swarm.sim.dht import Cost, Dht, Entry


def entry(peer_id, expires_s=60.0):
    return Entry(peer_id, 0, 4, 1.0, True, expires_s)


def test_entries_live_until_they_expire_or_are_removed():
    dht, cost = Dht(), Cost()
    dht.store("key", entry("a", 60.0), 0.0)
    dht.store("key", entry("b", 90.0), 0.0)
    assert [[e.peer_id for e in found] for found in dht.read(["key", "nothing"], 59.0, cost)] == [
        ["a", "b"],
        [],
    ]
    assert [e.peer_id for e in dht.read(["key"], 60.0, cost)[0]] == ["b"]
    dht.remove("key", "b")
    assert dht.sizes(60.0) == {}
    assert (cost.lookups, cost.records, dht.most_records) == (3, 3, 2)
    assert dht.total.stores == 3


def test_what_is_stored_again_lives_on():
    dht = Dht()
    dht.store("key", entry("a", 60.0), 0.0)
    dht.store("key", entry("a", 80.0), 20.0)
    assert dht.sizes(70.0) == {"key": 1}


def test_a_larger_network_and_more_records_cost_more():
    few, many = Cost(lookups=16, records=16), Cost(lookups=16, records=160)
    assert few.nbytes(100, 600) < few.nbytes(10_000, 600) < many.nbytes(10_000, 600)
    assert few.messages(100) == many.messages(100)
