"""What `swarm demo` prints when all is over."""

from rich.console import Console

from helpers.terminals import on_screens
from helpers.text_stats import text_stats, time_share
from swarm.bench.compare import Comparison
from swarm.bench.ways import BRANCHES
from swarm.client.meter import Meter, TextFacts
from swarm.decoding.counts import Counts
from swarm.demo.show import WAYS, _panels, _print_table, _time_spent
from swarm.outputs import Generation, Measured

COLUMNS = ("tokens", "tok/s", "loop ms", "in flight", "work", "kB", "speedup", "of bound")


def generation(tokens_per_second):
    meter = Meter(iter((0.0, 200 / tokens_per_second)).__next__)
    meter.start()
    meter.loop(Measured(1234.0, (2.0, 3.0)), 200)
    counts = Counts(
        loops=1, drafted=8, accepted=2, rejected=2, branched=1, waits=2, frames=2, sent=8, held=3
    )
    facts = {
        "prompt_tokens": 1,
        "bytes_sent": 4 << 20,
        "bytes_received": 8 << 20,
        "seed": None,
        "exact": True,
    }
    facts |= {"rule": "strict", "draft_error": None, "failovers": (), "finish_reason": "length"}
    return Generation("", tuple(range(200)), (), meter.stats(counts, TextFacts(**facts)))


def test_the_table_is_whole_at_any_width(monkeypatch):
    ways = {
        way.name: generation(speed) for way, speed in zip(WAYS, (10.0, 123.4, 234.5), strict=True)
    }
    comparisons = [Comparison("a prompt", ways)] * 3
    for width, lines in on_screens(
        monkeypatch, lambda: _print_table(Console(), comparisons)
    ).items():
        text = "\n".join(lines)
        assert "\u2026" not in text
        assert all(column in text for column in COLUMNS), width
        for figure in ("123.4", "234.5", "12.34x", "23.45x", "1234", "12582.9"):
            assert text.count(figure) >= 3, width
        parts = text.count("plain") // 3
        assert parts == {0: 1, 60: 3, 80: 2, 200: 1}[width]
        assert all(text.count(way.name) == 3 * parts for way in WAYS)


def test_texts_are_whole_at_any_width(monkeypatch):
    from rich.text import Text

    words = [f"word{i}" for i in range(60)]
    texts = {way.name: Text(" ".join(words)) for way in WAYS}
    for width, lines in on_screens(monkeypatch, lambda: Console().print(_panels(texts))).items():
        shown = "\n".join(lines).split()
        assert all(shown.count(word) == 3 for word in words), width


def test_the_clients_share_of_the_longest_streamed_text_is_told():
    share = time_share(links=0.5, judging=0.1, drafting=0.2)
    short = text_stats(seconds=1.0)
    long = text_stats(seconds=2.0, share=share)
    comparisons = [
        Comparison("", {BRANCHES.name: Generation("", (), (), stats)}) for stats in (short, long)
    ]
    assert str(_time_spent(comparisons)) == (
        "The longest text by streaming: time: 50% on links, 0% computing on peers, 10% judging and "
        "20% drafting here, 20% waiting."
    )
