"""Show the answers of a chat: in a terminal, as text in a pipe, or as JSON."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from swarm.chat.chat import ChatAnswer
from swarm.chat.thoughts import NO_THOUGHTS, Thoughts
from swarm.dialogue.events import Event, Reasoning, Text
from swarm.outputs import Piece
from swarm.terminal import console
from swarm.terminal.bottleneck import bottleneck


class TextDisplay:
    """Prints answers to standard output as they come, everything else to standard error.

    Args:
        waiting_for: shows what the chat waits for (`swarm.terminal.activity.activity`).
        figures: whether to print a line of figures after every answer.
        thoughts: what of an answer is folded away.
    """

    def __init__(
        self, waiting_for: Callable[[str], None], figures: bool, thoughts: Thoughts = NO_THOUGHTS
    ) -> None:
        self.waiting_for = waiting_for
        self._figures = figures
        self._thoughts = thoughts
        self._parser = thoughts.parser(())

    def begins(self, prompt: Sequence[int]) -> None:
        self._parser = self._thoughts.parser(prompt)

    def piece(self, piece: Piece) -> None:
        self._show(self._parser.push(piece.text), piece)

    def _show(self, events: Sequence[Event], piece: Piece | None = None) -> None:
        for event in events:
            if isinstance(event, Reasoning):
                self.waiting_for("thinking")
            elif isinstance(event, Text):
                self.waiting_for("")
                if piece is not None:
                    console.show_piece(replace(piece, text=event.text))
                else:
                    click.echo(event.text, nl=False)

    def ended(self, answer: ChatAnswer) -> None:
        self._show(self._parser.end())
        click.echo()
        if answer.error is not None:
            self.note(f"error: {answer.error}")
        elif self._figures:
            self.note(figures(answer))

    def note(self, text: str) -> None:
        click.echo(click.style(console.CONTROLS.sub("", text), dim=True), err=True)


class JsonDisplay:
    """Prints one JSON object per line and answer, when it has ended; notes to standard error."""

    def waiting_for(self, what: str) -> None:
        pass

    def begins(self, prompt: Sequence[int]) -> None:
        pass

    def piece(self, piece: Piece) -> None:
        pass

    def ended(self, answer: ChatAnswer) -> None:
        click.echo(json.dumps(answer.as_dict()))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        click.echo(console.CONTROLS.sub("", text), err=True)


def figures(answer: ChatAnswer) -> str:
    """Return one short line: the speed, the share of drafted tokens that were kept, the client's
    share of the time; and what holds the speed back."""
    if answer.generation is None:
        return "stopped; the conversation keeps this part" if answer.text else "stopped"
    stats = answer.generation.stats
    parts = [f"{stats.new_tokens} tokens", f"{stats.tokens_per_second:.1f} tokens/s"]
    if stats.draft_acceptance_rate is not None:
        parts.append(f"{stats.draft_acceptance_rate:.0%} of the drafted tokens kept")
    if stats.relaxed_tokens:
        parts.append(f"{stats.relaxed_tokens} of them by leniency")
    if stats.share is not None:
        parts.append(f"{stats.share.judging:.0%} of the time judging here")
        parts.append(f"{stats.share.drafting:.0%} drafting")
    if stats.failovers:
        parts.append(f"peers replaced {len(stats.failovers)} times")
    if stats.finish_reason == "length":
        parts.append("ended by max-new-tokens")
    cause = bottleneck(stats)
    return ", ".join(parts) + (f"; held back because {cause}" if cause else "")
