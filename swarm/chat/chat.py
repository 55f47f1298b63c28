"""A chat: questions in, answers out. It goes on if an answer fails or is stopped."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from typing_extensions import Unpack

from swarm.chat.thoughts import NO_THOUGHTS, Thoughts
from swarm.client.conversation import Conversation, Render, Turn, fit
from swarm.client.generation import GenerationStream
from swarm.errors import PromptTooLong, SwarmError, SwarmIncomplete
from swarm.outputs import Generation, Piece, RouteStop
from swarm.request import DEFAULT_NEW_TOKENS, Options
from swarm.util.tasks import end


class Generator(Protocol):
    """The part of `swarm.client.client.SwarmClient` that a chat needs."""

    def stream(self, prompt: Sequence[int], **options: Unpack[Options]) -> GenerationStream:
        """Begin a new text."""
        ...


@dataclass(frozen=True)
class ChatAnswer:
    """The answer to a question, whole or not.

    Attributes:
        cut: whether it is incomplete, because it was stopped or failed.
        generation: the text with its statistics; None if it was stopped, or failed before it began.
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
        """The turn that it leaves in the conversation."""
        return Turn(self.question, self.text, self.cut)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the fields of a `Generation` if there is one."""
        fields: dict[str, Any] = {"token_ids": [], "route": [], "stats": None}
        if self.generation:
            fields = self.generation.as_dict()
        return {
            "question": self.question,
            **fields,
            "text": self.text,
            "cut": self.cut,
            "error": str(self.error) if self.error else None,
        }


class Display(Protocol):
    """Shows answers to the user."""

    def waiting_for(self, what: str) -> None:
        """Show what the chat waits for; an empty string if it no longer waits."""
        ...

    def begins(self, prompt: Sequence[int]) -> None:
        """Prepare for the answer to a prompt."""
        ...

    def piece(self, piece: Piece) -> None:
        """Show the next piece of the answer."""
        ...

    def ended(self, answer: ChatAnswer) -> None:
        """Show the end of an answer: finished, stopped or failed."""
        ...

    def note(self, text: str) -> None:
        """Show a message that is not part of an answer."""
        ...


@dataclass
class ChatState:
    """The state of a chat. Only `ask` and `retry` take long; `stop` ends them.

    Attributes:
        context_tokens: of prompt and answer together.
        thoughts: that a constraint of the options leaves free.
        failure: the first error of the chat.
        last: the last answer.
        over: whether the chat has ended.
    """

    client: Generator
    render: Render
    display: Display
    context_tokens: int
    options: Options = field(default_factory=Options)
    thoughts: Thoughts = NO_THOUGHTS
    conversation: Conversation = field(default_factory=Conversation)
    failure: SwarmError | None = None
    last: ChatAnswer | None = None
    over: bool = False
    _work: "asyncio.Task[Generation] | None" = None  # the answer that is being written

    async def ask(self, question: str) -> None:
        """Answer piece by piece; the answer, whole or not, becomes part of the conversation."""
        self.last = answer = await self._answer(question)
        if answer.text or not answer.cut:
            self.conversation = self.conversation.and_then(answer.turn)
        self.display.ended(answer)

    def refuse(self, question: str, error: SwarmError) -> None:
        """Answer a question that cannot be asked with the error, outside of the conversation."""
        self.display.ended(self._failed(ChatAnswer(question, error=error, cut=True)))

    def stop(self) -> None:
        """Stop the answer that is being written, if there is one; the part so far stays."""
        # only once: a second cancellation would disturb the cleanup of the first
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    async def retry(self) -> bool:
        """Ask the last question again, and forget its answer. Return False if there is none."""
        if self.last is None:
            return False
        if self.conversation.turns[-1:] == (self.last.turn,):
            self.conversation = self.conversation.without_last()
        await self.ask(self.last.question)
        return True

    async def _answer(self, question: str) -> ChatAnswer:
        try:
            stream = self._begin(question)
        except SwarmError as error:
            return self._failed(ChatAnswer(question, error=error, cut=True))
        pieces: list[Piece] = []
        work = self._work = asyncio.create_task(self._write(stream, pieces))
        try:
            await asyncio.wait({work})
        finally:
            self._work = None
            await end(work)
            self.display.waiting_for("")
        text = "".join(piece.text for piece in pieces)
        answer = ChatAnswer(question, text, tuple(pieces), stream.route, cut=True)
        if work.cancelled():
            return answer
        if isinstance(failure := work.exception(), SwarmError):
            partial = failure.generation if isinstance(failure, SwarmIncomplete) else None
            text = partial.text if partial else text
            return self._failed(replace(answer, text=text, error=failure, generation=partial))
        generation = work.result()
        return replace(answer, text=generation.text, generation=generation, cut=False)

    def _begin(self, question: str) -> GenerationStream:
        """Begin the answer. Raise `SwarmError` for an invalid conversation or options."""
        new_tokens = self.options.get("max_new_tokens", DEFAULT_NEW_TOKENS)
        kept, prompt = fit(
            self.conversation, question, self.render, self.context_tokens - new_tokens
        )
        if len(prompt) + new_tokens > self.context_tokens:
            raise PromptTooLong(len(prompt), new_tokens, self.context_tokens)
        if dropped := len(self.conversation.turns) - len(kept.turns):
            first = "question and its answer"
            if dropped > 1:
                first = f"{dropped} questions and their answers"
            self.display.note(
                f"The model's context of {self.context_tokens} tokens is full: it no longer sees"
                f" the first {first}. /new begins a new conversation."
            )
        stream = self.client.stream(prompt, **self.thoughts.before(self.options, prompt))
        self.conversation = kept
        self.display.begins(prompt)
        return stream

    async def _write(self, stream: GenerationStream, pieces: list[Piece]) -> Generation:
        self.display.waiting_for("waiting for the swarm")
        async with aclosing(stream.__aiter__()) as writing:
            async for piece in writing:
                pieces.append(piece)
                self.display.piece(piece)
        return stream.result

    def _failed(self, answer: ChatAnswer) -> ChatAnswer:
        self.failure = self.failure or answer.error
        return answer
