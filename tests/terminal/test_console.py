"""Colours in a terminal, plain text elsewhere, and no control characters of strangers."""

import io
import sys
from dataclasses import replace

import click
import pytest
from rich.text import Text

from helpers.terminals import on_screens
from swarm.audit.unaudited import Reason
from swarm.client.meter import Meter, TextFacts
from swarm.client.status import ModelStatus, PeerStatus
from swarm.decoding.counts import Counts
from swarm.outputs import Audits, Generation, Measured, Piece, RouteStop
from swarm.terminal import console
from swarm.terminal.console import (
    LEGEND,
    STYLES,
    show_fates,
    show_piece,
    show_status,
    show_summary,
    summary,
)

PEER_A, PEER_B = "12D3KooW" + "a" * 40, "12D3KooW" + "b" * 40


def generation(drafted=0, accepted=0):
    ticks = iter([0.0, 2.0])
    meter = Meter(lambda: next(ticks))
    meter.start()
    meter.loop(Measured(50.0, (1.0,)), 10)
    counts = Counts(loops=4, drafted=drafted, accepted=accepted)
    facts = {
        "prompt_tokens": 5,
        "bytes_sent": 1,
        "bytes_received": 1,
        "seed": None,
        "finish_reason": "stop",
    }
    route = (RouteStop(PEER_A, (0, 4), 1.0), RouteStop(PEER_B, (4, 8), 1.0))
    facts |= {"exact": True, "rule": "strict", "draft_error": None}
    pieces = tuple(Piece(1, "x", origin) for origin in LEGEND if drafted and origin != "relaxed")
    return Generation("hello", (1, 2), route, meter.stats(counts, TextFacts(**facts)), pieces)


class Terminal(io.StringIO):
    """Captures output; to the program it looks like a terminal."""

    def __init__(self, monkeypatch, name):
        super().__init__()
        monkeypatch.setattr(sys, name, self)

    def isatty(self):
        return True


def test_in_a_terminal_pieces_are_coloured_by_origin(monkeypatch):
    terminal = Terminal(monkeypatch, "stdout")
    for origin in LEGEND:
        show_piece(Piece(1, "abc", origin))
    green, magenta, cyan, yellow, bold = (
        click.style("abc", fg="green"),
        click.style("abc", fg="magenta"),
        click.style("abc", fg="cyan"),
        click.style("abc", fg="yellow"),
        click.style("abc", bold=True),
    )
    assert terminal.getvalue() == green + magenta + cyan + yellow + bold


@pytest.mark.parametrize(("setting", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_colours_gets_none(monkeypatch, setting, value):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch, "stdout")

    @click.command()
    def show():
        console.settle_colours()
        show_piece(Piece(1, "abc", "drafted"))

    show([], standalone_mode=False)
    assert terminal.getvalue() == click.style("abc", fg="green")
    monkeypatch.setenv(setting, value)
    show([], standalone_mode=False)
    assert terminal.getvalue() == click.style("abc", fg="green") + "abc"


def test_elsewhere_pieces_are_plain_text(capsys):
    for text, origin in (
        ("abc", "drafted"),
        ("\n", "corrected"),
        ("", "target"),
        ("\x1b[1m\x00é", "target"),
    ):
        show_piece(Piece(1, text, origin))
    # click itself may drop colours in a pipe
    assert capsys.readouterr().out in ("abc\n\x1b[1m\x00é", "abc\n\x00é")


def test_the_text_cannot_steer_the_terminal(monkeypatch):
    terminal = Terminal(monkeypatch, "stdout")
    show_piece(Piece(1, "a\x1b]0;title\x07b\x9b2Jc\td\ne\r\x7f", "target"))
    assert terminal.getvalue() == click.style("a]0;titleb2Jc\td\ne", bold=True)


def test_every_origin_has_a_style_and_a_legend():
    assert set(STYLES) == set(LEGEND) == {"drafted", "relaxed", "branch", "corrected", "target"}


def test_the_summary_is_one_line_of_figures():
    assert summary(generation(drafted=8, accepted=6)) == (
        "10 tokens in 2.0 s (5.0 tokens/s), 4 loops of 50 ms, 6 of 8 drafted tokens kept; exact; "
        "route 0:4 ...aaaaaa > 4:8 ...bbbbbb"
    )
    assert "drafted" not in summary(generation())


def test_every_tokens_fate_is_told(capsys):
    show_fates(
        [
            *(
                Piece(1, " four", "drafted", drafted_id=1),
                Piece(2, " and", "drafted", drafted_id=2),
            ),
            Piece(3, " so", "relaxed", 3, 4, " then", 0.25, reason="0.25 nats less likely"),
            Piece(5, "7", "corrected", 6, 5, "8\x1b[1m", key=True, reason="number"),
            Piece(9, "!", "target"),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "",
        "    0  drafted    ' four and'",
        "    2  relaxed    ' so'  the target's choice was ' then' (0.25 nats less likely)",
        "    3  corrected  '7'  drafted was '8[1m' (key token: number)",
        "    4  target     '!'",
    ]


def test_the_summary_goes_to_standard_error_and_only_the_newline_to_the_text(capsys):
    show_summary(generation(drafted=8))
    said = capsys.readouterr()
    assert said.out == "\n"
    assert said.err == summary(generation(drafted=8)) + "\n"


def test_a_terminal_gets_a_legend_if_anything_was_drafted(monkeypatch):
    Terminal(monkeypatch, "stdout")
    figures = Terminal(monkeypatch, "stderr")
    show_summary(generation())
    assert len(figures.getvalue().splitlines()) == 1
    show_summary(generation(drafted=8))
    legend = figures.getvalue().splitlines()[1]
    assert (
        click.unstyle(legend)
        == "drafted and kept  the draft's other choice  draft corrected  the target's own"
    )
    assert legend.startswith(click.style("drafted and kept", fg="green"))


def peer(peer_id, layers, rtt_ms=12.34, path="direct"):
    path = path if rtt_ms is not None else None
    return PeerStatus(peer_id, layers, "bfloat16", 123.4, 5000, "online", "0.1.0", rtt_ms, path)


def status_of(*reports, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    show_status("testnet", reports)
    return capsys.readouterr().out


def test_status_shows_a_bar_a_peer_and_that_all_is_served(capsys, monkeypatch):
    report = ModelStatus(
        "m", "ab" * 16, 8, (peer(PEER_A, (0, 5)), peer(PEER_B, (4, 8), path="relay")), ()
    )
    said = status_of(report, capsys=capsys, monkeypatch=monkeypatch)
    assert "direct" in said
    assert "relay" in said
    assert "m  (8 layers, weights abababababab)" in said
    assert "█████···" in said
    assert "····████" in said
    for fact in (
        "\u2026aaaaaaaa",
        "0:5",
        "4:8",
        "bfloat16",
        "123",
        "5000",
        "online",
        "12.3",
        "All layers are served.",
    ):
        assert fact in said


def test_status_is_whole_at_any_width(monkeypatch):
    peers = (peer(PEER_A, (0, 40)), replace(peer(PEER_B, (40, 80), None), state="joining"))
    report = ModelStatus("organisation/some-model-70B-instruct", "ab" * 16, 80, peers, ((40, 80),))
    for width, lines in on_screens(monkeypatch, lambda: show_status("testnet", [report])).items():
        words = " ".join(lines).split()
        for word in (
            "\u2026aaaaaaaa",
            "0:40",
            "40:80",
            "bfloat16",
            "123",
            "5000",
            "unreachable",
            "direct",
            "12.3",
        ):
            assert word in words, width
        for column in ("peer", "layers", "span", "dtype", "tok/s", "cache", "state", "path", "rtt"):
            assert column in words, width


def test_status_says_plainly_what_is_missing_and_who_does_not_answer(capsys, monkeypatch):
    report = ModelStatus(
        "m", "ab" * 16, 8, (peer(PEER_A, (2, 4)), peer(PEER_B, (4, 8), None)), ((0, 2), (4, 8))
    )
    said = status_of(report, capsys=capsys, monkeypatch=monkeypatch)
    assert report.why in said
    assert "unreachable" in said


def test_status_says_which_of_the_missing_layers_are_on_their_way(capsys, monkeypatch):
    joining = replace(peer(PEER_B, (3, 6)), state="joining")
    report = ModelStatus("m", "ab" * 16, 8, (peer(PEER_A, (0, 4)), joining), ((4, 8),))
    said = status_of(report, capsys=capsys, monkeypatch=monkeypatch)
    assert "joining" in said
    assert report.why in said


def test_status_of_an_empty_network(capsys, monkeypatch):
    said = status_of(capsys=capsys, monkeypatch=monkeypatch)
    assert said == "The network testnet is up, but no peer in it serves a model.\n"


def test_status_of_a_large_swarm_says_that_it_is_a_sample(capsys, monkeypatch):
    report = ModelStatus("m", "ab" * 16, 8, (peer(PEER_A, (0, 8)),), (), estimated_peers=1234)
    said = status_of(report, capsys=capsys, monkeypatch=monkeypatch)
    assert "A sample of 1 peers; there are about 1,200." in said
    assert "about" not in status_of(
        replace(report, estimated_peers=None), capsys=capsys, monkeypatch=monkeypatch
    )


def test_a_model_folder_may_be_named_like_markup(capsys, monkeypatch):
    report = ModelStatus("[/bold] x", "ab" * 16, 8, (peer(PEER_A, (0, 4)),), ((4, 8),))
    said = status_of(report, capsys=capsys, monkeypatch=monkeypatch)
    assert said.count("[/bold] x") == 2


@pytest.mark.parametrize(
    ("layers", "model_layers", "bar"),
    [
        ((0, 8), 8, "████████"),
        ((7, 8), 8, "·······█"),
        ((0, 64), 64, "█" * 32),
        ((32, 64), 64, "·" * 16 + "█" * 16),
        ((63, 64), 64, "·" * 31 + "█"),
        ((0, 1), 1000, "█" + "·" * 31),
        ((999, 1000), 1000, "·" * 31 + "█"),
    ],
)
def test_a_bar_shows_where_a_span_lies(layers, model_layers, bar):
    shown = console._bar(layers, model_layers)
    assert isinstance(shown, Text)
    assert shown.plain == bar


def test_whoever_was_caught_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_audits(Audits(texts=3))
    assert capsys.readouterr().err == ""
    console.show_audits(Audits(caught=("12D3KooWabcdefgh", "12D3KooWijklmnop")))
    assert capsys.readouterr().err.splitlines() == [
        "banned for computing something else than the model: ...abcdefgh, ...ijklmnop"
    ]


def test_texts_that_were_not_audited_are_told_with_the_reasons(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.show_audits(Audits(texts=3, waiting=1, failures={"busy": 2, "no_other_peers": 1}))
    assert capsys.readouterr().err.splitlines() == [
        "not audited: 2 texts (peers had no room), 1 text (no other peers serve these layers), "
        "1 text (that takes longer than this command waited)"
    ]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words(reason: Reason) -> None:
    assert reason.in_words
