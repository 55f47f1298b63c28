"""Texts of all models that this gateway serves: who may have one written, and how it goes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import Unpack

from swarm.chain.stage import ChainLink
from swarm.client.generation import GenerationStream
from swarm.client.models import ClientModels
from swarm.client.status import ModelStatus
from swarm.errors import ConfigError, SwarmError
from swarm.gateway.admission import Admission
from swarm.gateway.errors import BadRequest, UnknownModel, problem_of
from swarm.gateway.merge import merged
from swarm.gateway.metrics import Metrics
from swarm.gateway.outlook import Outlook
from swarm.gateway.prompts import Threads, prompts_of
from swarm.gateway.requests import MAX_CHOICES, Body
from swarm.gateway.speedometer import Speedometer
from swarm.outputs import Audits, Generation, Piece, RouteStop
from swarm.request import Options, Request, context_tokens


class Engine(Protocol):
    """Writes the texts of one model: a `swarm.SwarmClient`."""

    @property
    def models(self) -> ClientModels: ...
    @property
    def audits(self) -> Audits: ...
    def stream(
        self, prompt: str | Sequence[int], **options: Unpack[Options]
    ) -> GenerationStream: ...
    async def find_chain(self) -> list[ChainLink]: ...
    async def look(self) -> ModelStatus: ...


@dataclass(frozen=True)
class Said:
    """One token of a text, and the chain that it came over."""

    index: int
    piece: Piece
    route: tuple[RouteStop, ...]


@dataclass(frozen=True)
class Done:
    """A text came to its end."""

    index: int
    generation: Generation


Event = Said | Done


class Service:
    """One engine a model, and one admission for all of them.

    Args:
        threads: where prompts are read.
        clock: tells seconds.

    Raises:
        ConfigError: for two models of one name.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        admission: Admission,
        metrics: Metrics,
        speedometer: Speedometer,
        threads: Threads,
        clock: Callable[[], float] = time.monotonic,
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
            metrics.tell_audits(name, engine)
        self._outlooks = {
            name: Outlook(engine.find_chain, clock) for name, engine in self.engines.items()
        }
        self._admission, self._metrics, self._speedometer = admission, metrics, speedometer
        self._threads, self._clock = threads, clock

    def engine(self, model: str) -> Engine:
        """Raises `UnknownModel`."""
        if model not in self.engines:
            raise UnknownModel(model, list(self.engines))
        return self.engines[model]

    def check(self, body: Body) -> int:
        """Return how many texts a body asks for.

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
        request = Request.of({**body.options(0), "max_new_tokens": body.new_tokens[0] or 1})
        request.check_vocabulary(engine.models.checkpoint)
        return body.texts

    async def write(self, body: Body, read: Callable[[], None]) -> AsyncGenerator[Event, None]:
        """Write all texts that are asked for, ``n`` for each prompt, side by side once there are
        places for all.

        Closing this ends them, and the peers' sessions with them.

        Args:
            read: called once the prompts are token ids.

        Raises:
            What `check` raises, and BadRequest, PromptTooLong: before anything is written.
            Overloaded: if too many texts are being written.
            SwarmError: what `SwarmClient.stream` raises, at any time.
        """
        arrived, count, n = self._clock(), self.check(body), body.n
        engine, outlook = self.engine(body.model), self._outlooks[body.model]
        async with self._admission.admit(body.model, count):
            prompts = await prompts_of(body, engine.models, self._threads)
            read()
            streams = [
                engine.stream(
                    prompts[number // n], **self._options(body, prompts[number // n], number)
                )
                for number in range(count)
            ]
            await outlook.promising()
            async with self._admission.place(body.model, count):
                texts = [
                    self._text(index, body.model, stream, arrived)
                    for index, stream in enumerate(streams)
                ]
                async with aclosing(merged(texts)) as events:
                    async for event in events:
                        yield event

    async def missing(self) -> dict[str, str]:
        """The models that no whole chain exists for now, and why."""
        whys = await asyncio.gather(
            *(self._missing(outlook) for outlook in self._outlooks.values())
        )
        return {model: why for model, why in zip(self.engines, whys, strict=True) if why}

    async def look(self) -> list[ModelStatus]:
        """Who serves which layers of each model. Raises `DirectoryDown`."""
        return list(await asyncio.gather(*(engine.look() for engine in self.engines.values())))

    def _options(self, body: Body, prompt: Sequence[int], number: int) -> Options:
        asked, usual = body.new_tokens
        room = context_tokens(self.engine(body.model).models.checkpoint) - len(prompt)
        options = body.options(number)
        options["max_new_tokens"] = asked or max(1, min(usual, room))
        return options

    async def _text(
        self, index: int, model: str, stream: GenerationStream, arrived: float
    ) -> AsyncGenerator[Event, None]:
        speed, outlook, said = self._speedometer.began(model), self._outlooks[model], 0
        over, for_want_of_peers = False, False
        outlook.began()
        try:
            async with aclosing(stream.__aiter__()) as pieces:
                async for piece in pieces:
                    if not said:
                        self._metrics.first_token(model, self._clock() - arrived)
                    said += 1
                    route = stream.route
                    outlook.heard()
                    speed.route(route)
                    speed.piece(piece)
                    speed.measured(stream.measured)
                    yield Said(index, piece, route)
            over = True
            done = stream.result
            speed.finished(done.stats)
            self._metrics.finished(model, done.stats, self._clock() - arrived)
            yield Done(index, done)
        except Exception as error:
            over = True
            problem = problem_of(error)
            for_want_of_peers = problem.status == 503
            if problem.status >= 500:
                self._metrics.failed(model, problem.code or "server_error")
            raise
        finally:
            speed.ended()
            outlook.ended(for_want_of_peers)
            if not over:
                self._metrics.abandoned(model)

    async def _missing(self, outlook: Outlook) -> str | None:
        try:
            await outlook.look()
        except SwarmError as error:
            return problem_of(error).message
        return None
