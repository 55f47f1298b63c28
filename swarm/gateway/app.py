"""The routes of the gateway: requests in, replies out, and nothing that a reader should not see."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from swarm.gateway.browsers import check_host, check_origin
from swarm.gateway.chat import chat_prompt
from swarm.gateway.errors import BadRequest, Problem, WrongKey, problem_of
from swarm.gateway.keys import Keys
from swarm.gateway.metrics import Metrics
from swarm.gateway.pages import is_open
from swarm.gateway.replies import ChatShape, Reply, Shape, TextShape
from swarm.gateway.requests import B, Body, ChatBody, TextBody, read
from swarm.gateway.service import Done, Engine, Event, Said, Service
from swarm.gateway.sse import EventStream, SlowReader
from swarm.model.client import ClientModels
from swarm.network.tasks import within
from swarm.request import context_tokens

MAX_BODY_BYTES = 2 << 20  # more text than any context holds
BODY_TIMEOUT_S = 30.0  # for all of it to come
PROBES = frozenset({"/health", "/ready"})  # asked by whatever name a host has; they tell nothing worth a key
JSON = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Gateway:
    """Handlers of all routes but the pages'.

    Args:
        keys: who may ask.
        names: by which this host is known, beside its addresses.
    """

    def __init__(self, service: Service, metrics: Metrics, keys: Keys, names: Collection[str] = ()) -> None:
        self._service, self._metrics, self._keys, self._names = service, metrics, keys, names
        self._since = int(time.time())

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._tell_errors, self._guard])
        app.on_response_prepare.append(_sign)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._count)
        return app

    # Texts.

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        models = self._service.engine(body.model).models
        prompt = await asyncio.to_thread(chat_prompt, models.tokenizer, body.messages)
        return await self._answer(request, body, [prompt], ChatShape())

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, TextBody)
        models = self._service.engine(body.model).models
        prompts = await asyncio.to_thread(_token_ids, models, body.prompt)
        return await self._answer(request, body, prompts, TextShape())

    async def _read(self, request: web.Request, kind: type[B]) -> B:
        if request.content_type != JSON:
            raise BadRequest(f"send the body as `Content-Type: {JSON}`", status=415)
        try:
            return read(await within(BODY_TIMEOUT_S, request.read()), kind)
        except asyncio.TimeoutError:
            raise BadRequest(f"the body did not come within {BODY_TIMEOUT_S:g} s", status=408) from None

    async def _answer(
        self, request: web.Request, body: Body, prompts: Sequence[Sequence[int]], shape: Shape
    ) -> web.StreamResponse:
        models = self._service.engine(body.model).models
        reply = Reply(
            shape,
            body.model,
            models.checkpoint.fingerprint,
            lambda token: models.lexicon.decode([token]),
            logprobs=body.told_logprobs is not None,
            explain=body.explain,
            usage_chunk=body.include_usage,
        )
        async with aclosing(self._service.write(body, prompts)) as events:
            if body.stream:
                return await self._stream(request, events, reply)
            done = {event.index: event.generation async for event in events if isinstance(event, Done)}
            return web.json_response(reply.whole([done[index] for index in sorted(done)]))

    async def _stream(
        self, request: web.Request, events: AsyncGenerator[Event, None], reply: Reply
    ) -> web.StreamResponse:
        """What fails before the first token has a status of its own, what fails later is the last event."""
        first = await anext(events)
        stream = EventStream(request)
        await stream.open()
        with suppress(ConnectionResetError, SlowReader):
            try:
                await self._send(stream, reply, first, events)
            except (ConnectionResetError, SlowReader):
                raise
            except Exception as error:
                await stream.send(_problem(error).body)
            await stream.close()
        return stream.response

    async def _send(self, stream: EventStream, reply: Reply, first: Event, others: AsyncGenerator[Event, None]) -> None:
        generations = []
        event: Event | None = first
        while event is not None:
            if isinstance(event, Said):
                chunk = reply.piece(event.index, event.piece, event.route)
            else:
                generations.append(event.generation)
                chunk = reply.end(event.index, event.generation)
            if chunk is not None:
                await stream.send(chunk)
            event = await anext(others, None)
        if reply.usage_chunk:
            await stream.send(reply.usage(generations))

    # What there is.

    async def _models(self, request: web.Request) -> web.Response:
        cards = [self._card(name, engine) for name, engine in self._service.engines.items()]
        return web.json_response({"object": "list", "data": cards})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        return web.json_response(self._card(name, self._service.engine(name)))

    def _card(self, name: str, engine: Engine) -> dict[str, Any]:
        models = engine.models
        return {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "swarm",
            "max_model_len": context_tokens(models.checkpoint),
            "swarm": {
                "fingerprint": models.checkpoint.fingerprint,
                "layers": models.checkpoint.num_layers,
                "draft": models.draft is not None,
                "chat": bool(getattr(models.tokenizer, "chat_template", None)),
            },
        }

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        missing = await self._service.missing()
        told = {"status": "incomplete" if missing else "ok", "missing": missing}
        return web.json_response(told, status=503 if missing else 200)

    async def _count(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type})

    # Around all of them.

    @web.middleware
    async def _tell_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            problem = _problem(error)
            self._metrics.refused(problem.code or "invalid_request")
            return problem.response()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES:
            host = request.headers.get("Host", "")
            check_origin(request.method, host, request.headers.get("Origin"))
            if not self._keys:
                check_host(host, self._names)
            elif not is_open(request.path) and not self._keys.admit(request.headers.get("Authorization")):
                raise WrongKey
        return await handler(request)


def _token_ids(models: ClientModels, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    """In a thread: text of megabytes takes its time."""
    return [models.tokenizer(prompt).input_ids if isinstance(prompt, str) else prompt for prompt in prompts]


def _problem(error: Exception) -> Problem:
    """What to tell; what is a bug of ours goes to the log in full."""
    if isinstance(error, web.HTTPException):
        return Problem(
            error.status, f"{error.reason}: docs/gateway.md lists what can be asked", "invalid_request_error"
        )
    problem = problem_of(error)
    if problem.status == 500:
        log.error("a request failed", exc_info=error)
    return problem


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "swarm"
    response.headers["X-Request-Id"] = secrets.token_hex(8)
