"""A chat: questions in, answers out. An answer can fail or be stopped; the conversation goes on."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from typing_extensions import Unpack

from swarm.chain.failures import SwarmIncomplete
from swarm.client.conversation import Conversation, Render, Turn, fit
from swarm.client.generation import GenerationStream
from swarm.errors import SwarmError
from swarm.outputs import Generation, Piece, RouteStop
from swarm.request import DEFAULT_NEW_TOKENS, Options, PromptTooLong
from swarm.util.tasks import end


class Writes(Protocol):
    """As much of `swarm.client.client.SwarmClient` as a chat needs."""

    def stream(self, prompt: Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        """A new text."""
        ...


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        cut: it is not finished: it was stopped, or it failed.
        generation: with all figures; None where there are none, because it was stopped or failed at
            the beginning.
        error: why it failed, if it did.
    """

    question: str
    text: str = ""
    pieces: tuple[Piece, ...] = ()
    route: tuple[RouteStop, ...] = ()
    cut: bool = False
    generation: Generation | None = None
    error: SwarmError | None = None

    @property
    def turn(self) -> Turn:
        """What stays of it in the conversation."""
        return Turn(self.question, self.text, self.cut)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; with the fields of a `Generation` if it is finished."""
        done = (
            self.generation.as_dict()
            if self.generation
            else {"token_ids": [], "route": [], "stats": None}
        )
        error = str(self.error) if self.error else None
        return {
            "question": self.question,
            **done,
            "text": self.text,
            "cut": self.cut,
            "error": error,
        }


class Display(Protocol):
    """Where answers appear."""

    def waiting_for(self, what: str) -> None:
        """Something takes its time; nothing ("") if it is over."""
        ...

    def piece(self, piece: Piece) -> None:
        """The next piece of the answer."""
        ...

    def ended(self, answer: Answer) -> None:
        """The answer is over, one way or another."""
        ...

    def note(self, text: str) -> None:
        """Something that is no part of the answer."""
        ...


@dataclass
class Chat:
    """The state of a chat; `ask` is the only thing that takes time, and `stop` ends it.

    Attributes:
        context_tokens: of prompt and answer together.
        failure: the first of all.
        last: the last answer of the conversation.
        over: nothing more is to be asked.
    """

    client: Writes
    render: Render
    display: Display
    context_tokens: int
    options: Options = field(default_factory=Options)
    conversation: Conversation = field(default_factory=Conversation)
    failure: SwarmError | None = None
    last: Answer | None = None
    over: bool = False
    _work: "asyncio.Task[Generation] | None" = None  # the answer that is being written

    async def ask(self, question: str) -> None:
        """Answer, piece by piece.

        Whatever text there is in the end becomes a part of the conversation.
        """
        self.last = answer = await self._answer(question)
        if answer.text or not answer.cut:
            self.conversation = self.conversation.and_then(answer.turn)
        self.display.ended(answer)

    def refuse(self, question: str, error: SwarmError) -> None:
        """Answer with why a question cannot be asked; the conversation stays as it is."""
        self.display.ended(self._failed(Answer(question, error=error, cut=True)))

    def stop(self) -> None:
        """End the answer that is being written, if there is one; what there is of it stays."""
        # once: a second cancellation would disturb how the first one tidies up
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    async def retry(self) -> bool:
        """Ask the last question again, and forget its answer; False if there is none."""
        if self.last is None:
            return False
        if self.conversation.turns[-1:] == (self.last.turn,):
            self.conversation = self.conversation.without_last()
        await self.ask(self.last.question)
        return True

    async def _answer(self, question: str) -> Answer:
        try:
            stream = self._begin(question)
        except SwarmError as error:
            return self._failed(Answer(question, error=error, cut=True))
        pieces: list[Piece] = []
        work = self._work = asyncio.create_task(self._write(stream, pieces))
        try:
            await asyncio.wait({work})
        finally:
            self._work = None
            await end(work)
            self.display.waiting_for("")
        text = "".join(piece.text for piece in pieces)
        answer = Answer(question, text, tuple(pieces), stream.route, cut=True)
        if work.cancelled():
            return answer
        if isinstance(failure := work.exception(), SwarmError):
            partial = failure.generation if isinstance(failure, SwarmIncomplete) else None
            text = partial.text if partial else text
            return self._failed(replace(answer, text=text, error=failure, generation=partial))
        generation = work.result()
        return replace(answer, text=generation.text, generation=generation, cut=False)

    def _begin(self, question: str) -> GenerationStream:
        """Raises `SwarmError` for a conversation or options that cannot be."""
        new_tokens = self.options.get("max_new_tokens", DEFAULT_NEW_TOKENS)
        kept, prompt = fit(
            self.conversation, question, self.render, self.context_tokens - new_tokens
        )
        if len(prompt) + new_tokens > self.context_tokens:
            raise PromptTooLong(len(prompt), new_tokens, self.context_tokens)
        if dropped := len(self.conversation.turns) - len(kept.turns):
            self.display.note(
                f"The model's context of {self.context_tokens} tokens is full: it no longer sees"
                f" the first {f'{dropped} questions' if dropped > 1 else 'question'} and what was"
                " answered. /new begins afresh."
            )
        stream = self.client.stream(prompt, **self.options)
        self.conversation = kept
        return stream

    async def _write(self, stream: GenerationStream, pieces: list[Piece]) -> Generation:
        self.display.waiting_for("waiting for the swarm")
        async with aclosing(stream.__aiter__()) as writing:
            async for piece in writing:
                self.display.waiting_for("")
                pieces.append(piece)
                self.display.piece(piece)
        return stream.result

    def _failed(self, answer: Answer) -> Answer:
        self.failure = self.failure or answer.error
        return answer
