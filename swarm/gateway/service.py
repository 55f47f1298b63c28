"""Generates the texts of all models that this gateway serves, as far as admission allows."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import Unpack

from swarm.chain.stage import ChainLink
from swarm.client.chat_template import ChatPrompt
from swarm.client.generation import GenerationStream
from swarm.client.models import ClientModels
from swarm.client.status import ModelStatus
from swarm.errors import ConfigError, SwarmError
from swarm.gateway.admission import AdmissionControl
from swarm.gateway.asked import Asked
from swarm.gateway.availability import Availability
from swarm.gateway.errors import BadRequest, UnknownModel, error_reply
from swarm.gateway.merge import merged
from swarm.gateway.metrics import Metrics
from swarm.gateway.prompts import ParserThreads, prompts_of
from swarm.gateway.requests import MAX_CHOICES, Body, TextBody
from swarm.gateway.speedometer import Speedometer
from swarm.outputs import Audits, Generation, Piece, RouteStop
from swarm.request import Options, Request, context_tokens
from swarm.util.tasks import end


class Engine(Protocol):
    """Generates the texts of one model: a `swarm.SwarmClient`."""

    @property
    def models(self) -> ClientModels: ...
    @property
    def audits(self) -> Audits: ...
    def stream(
        self, prompt: str | Sequence[int], **options: Unpack[Options]
    ) -> GenerationStream: ...
    async def score(self, prompt: Sequence[int], *, likely: int = 0) -> list[Piece]: ...
    async def find_chain(self) -> list[ChainLink]: ...
    async def look(self) -> ModelStatus: ...


@dataclass(frozen=True)
class TokenEvent:
    """One new token of a text, and the chain that computed it."""

    index: int
    piece: Piece
    route: tuple[RouteStop, ...]


@dataclass(frozen=True)
class EndEvent:
    """The end of a text."""

    index: int
    generation: Generation
    echo: tuple[Piece, ...] | None = None  # the prompt, if the text begins with it


TextEvent = TokenEvent | EndEvent


class Service:
    """One engine per model, and one admission control for all of them.

    Args:
        threads: tokenize prompts.
        clock: returns seconds.
        remember: `Options.remember` of all texts.

    Raises:
        ConfigError: for two models of one name.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        admission: AdmissionControl,
        metrics: Metrics,
        speedometer: Speedometer,
        threads: ParserThreads,
        clock: Callable[[], float] = time.monotonic,
        remember: bool = True,
    ) -> None:
        self.engines: Mapping[str, Engine] = {
            engine.models.checkpoint.name: engine for engine in engines
        }
        if len(self.engines) < len(engines):
            raise ConfigError(
                "models",
                f"two have one name (of {', '.join(self.engines)}); rename one of the folders",
            )
        for name, engine in self.engines.items():
            metrics.watch_audits(name, engine)
        self._availability = {
            name: Availability(engine.find_chain, clock) for name, engine in self.engines.items()
        }
        self._admission = admission
        self._metrics = metrics
        self._speedometer = speedometer
        self._threads = threads
        self._clock = clock
        self._remember = remember

    def engine(self, model: str) -> Engine:
        """Return the engine of a model. Raise `UnknownModel`."""
        if model not in self.engines:
            raise UnknownModel(model, tuple(self.engines))
        return self.engines[model]

    def check(self, body: Body) -> int:
        """Check a body before its prompts are read, and return the number of texts it requests.

        Raises:
            UnknownModel, BadRequest, RequestError, SamplingError, RuleError: if it cannot be
                granted, whatever its prompts are.
        """
        engine = self.engine(body.model)
        if body.texts > MAX_CHOICES:
            problem = (
                f"{body.prompts} prompts make {body.texts} texts; ask for at most {MAX_CHOICES}"
            )
            raise BadRequest(problem, "n")
        self._admission.check(body.texts)
        requested, default = body.new_tokens
        request = Request.of({**body.options(0), "max_new_tokens": requested or default})
        request.check_vocabulary(engine.models.checkpoint)
        return body.texts

    async def generate(
        self,
        asked: Asked,
        prompts_read: Callable[[Sequence[ChatPrompt]], None],
        owner: str | None = None,
    ) -> AsyncGenerator[TextEvent, None]:
        """Generate all requested texts side by side, once there are places for all of them.

        There are ``n`` texts for each prompt. Closing this generator ends them, and the peers'
        sessions with them.

        Args:
            prompts_read: called with the prompts once they are token ids.
            owner: `Options.owner` of all texts.

        Raises:
            What `check` raises, and BadRequest, PromptTooLong: before anything is generated.
            Overloaded: if too many texts are being generated.
            SwarmError: what `SwarmClient.stream` raises, at any time.
        """
        arrived_at = self._clock()
        body = asked.body
        count = self.check(body)
        engine = self.engine(body.model)
        availability = self._availability[body.model]
        async with self._admission.admit(body.model, count):
            prompts = await prompts_of(asked, engine.models, self._threads)
            prompts_read(prompts)
            of_texts = [prompts[number // body.n] for number in range(count)]
            options = [
                self._options(asked, prompt, number, owner)
                for number, prompt in enumerate(of_texts)
            ]
            echoes: list[tuple[Piece, ...] | None] | None = None
            first = None
            while first is None:
                streams = [
                    engine.stream(prompt.ids, **own)
                    for prompt, own in zip(of_texts, options, strict=True)
                ]
                await availability.wait_until_likely()
                async with self._admission.place(body.model, count):
                    given_up = asyncio.Event()
                    if echoes is None:
                        echoes = [await self._echo(asked, prompt.ids) for prompt in prompts]
                    texts = [
                        self._text(
                            index,
                            body.model,
                            stream,
                            arrived_at,
                            given_up,
                            echoes[index // body.n],
                        )
                        for index, stream in enumerate(streams)
                    ]
                    async with aclosing(merged(texts)) as events:
                        first = await _first(events, availability, given_up)
                        if first is not None:
                            yield first
                            async for event in events:
                                yield event

    async def missing(self) -> dict[str, str]:
        """Return the models for which no whole chain exists now, each with the reason."""
        reasons = await asyncio.gather(*map(self._missing, self._availability.values()))
        return {
            model: reason
            for model, reason in zip(self.engines, reasons, strict=True)
            if reason is not None
        }

    async def look(self) -> list[ModelStatus]:
        """Return which peers serve which layers of each model. Raise `DirectoryDown`."""
        return list(await asyncio.gather(*(engine.look() for engine in self.engines.values())))

    def _options(self, asked: Asked, prompt: ChatPrompt, number: int, owner: str | None) -> Options:
        body = asked.body
        requested, default = body.new_tokens
        checkpoint = self.engine(body.model).models.checkpoint
        room = context_tokens(checkpoint) - len(prompt.ids)
        options = body.options(number)
        stop_token_ids = {*(options.get("stop_token_ids") or ()), *asked.ends}
        if body.ignore_eos:
            options["stop_token_ids"] = stop_token_ids
        elif stop_token_ids:
            options["stop_token_ids"] = {*stop_token_ids, *checkpoint.eos_token_ids}
        options["max_new_tokens"] = requested or max(1, min(default, room))
        options["spelled_tokens"] = asked.spelled
        options["constraint"] = asked.constraint(prompt)
        options["owner"] = owner
        options["remember"] = self._remember
        return options

    async def _text(
        self,
        index: int,
        model: str,
        stream: GenerationStream,
        arrived_at: float,
        given_up: asyncio.Event,
        echo: tuple[Piece, ...] | None,
    ) -> AsyncGenerator[TextEvent, None]:
        """Generate one text, and report it to the metrics, the speedometer and availability.

        Args:
            given_up: set if the text is closed because its peers are gone.
            echo: the prompt, if it is told with the text.
        """
        speed = self._speedometer.began(model)
        availability = self._availability[model]
        first = True
        ended = False
        for_want_of_peers = False
        availability.text_started()
        try:
            async with aclosing(stream.__aiter__()) as pieces:
                async for piece in pieces:
                    if first:
                        self._metrics.first_token(model, self._clock() - arrived_at)
                    first = False
                    route = stream.route
                    availability.token_arrived()
                    speed.route(route)
                    speed.piece(piece)
                    speed.measured(stream.measured)
                    yield TokenEvent(index, piece, route)
            ended = True
            generation = stream.result
            speed.finished(generation.stats)
            self._metrics.finished(model, generation.stats, self._clock() - arrived_at)
            yield EndEvent(index, generation, echo)
        except Exception as error:
            ended = True
            reply = error_reply(error)
            for_want_of_peers = reply.status == 503
            if reply.status >= 500:
                self._metrics.failed(model, reply.code or "server_error")
            raise
        finally:
            speed.ended()
            availability.text_ended(for_want_of_peers)
            if not ended and not given_up.is_set():
                self._metrics.abandoned(model)

    async def _echo(self, asked: Asked, prompt: Sequence[int]) -> tuple[Piece, ...] | None:
        """Return the prompt as it is told with the text, if it is to be."""
        body = asked.body
        if not (isinstance(body, TextBody) and body.echo):
            return None
        engine = self.engine(body.model)
        if body.num_logprobs is not None:
            return tuple(await engine.score(prompt, likely=body.num_logprobs))
        spell = engine.models.lexicon.spell
        return tuple(Piece(token, spell(token), "target") for token in prompt)

    async def _missing(self, availability: Availability) -> str | None:
        try:
            await availability.check()
        except SwarmError as error:
            return error_reply(error).message
        return None


async def _first(
    events: AsyncGenerator[TextEvent, None], availability: Availability, given_up: asyncio.Event
) -> TextEvent | None:
    """Return the first event of texts, or None if their peers are found gone before it.

    Then the texts are given up.
    """
    arriving = asyncio.ensure_future(events.__anext__())
    gone = asyncio.create_task(availability.wait_until_gone())
    try:
        await asyncio.wait({arriving, gone}, return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            return arriving.result()
        given_up.set()
        return None
    finally:
        await end(arriving, gone)
