from swarm.sim.events import Events


def test_things_happen_in_order_of_their_times():
    events, seen = Events(), []

    def process(name, *pauses):
        for pause in pauses:
            seen.append((events.now_s, name))
            yield pause
        seen.append((events.now_s, name))

    events.start(process("a", 2.0, 2.0))
    events.start(process("b", 3.0), after_s=1.0)
    events.run(10.0)
    assert seen == [(0.0, "a"), (1.0, "b"), (2.0, "a"), (4.0, "b"), (4.0, "a")], (
        "b was to happen at 4.0 before a was"
    )
    assert events.now_s == 10.0


def test_what_is_later_waits():
    events, seen = Events(), []

    def process():
        yield 5.0
        seen.append(events.now_s)

    events.start(process())
    events.run(4.0)
    assert (seen, events.now_s) == ([], 4.0)
    events.run(6.0)
    assert seen == [5.0]
