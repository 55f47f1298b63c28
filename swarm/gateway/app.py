"""The routes of the gateway: each turns a request into a reply, or an error into a safe answer."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial

from aiohttp import web

from swarm.client.chat_template import ChatPrompt
from swarm.gateway.asked import asked_of
from swarm.gateway.bounded_json import read_object
from swarm.gateway.browsers import check_host, check_origin
from swarm.gateway.echo import echoed
from swarm.gateway.errors import BadRequest, ErrorReply, WrongKey, error_reply
from swarm.gateway.intake import BodyReservation, Intake
from swarm.gateway.keys import ApiKeys, Owners, authorization
from swarm.gateway.metrics import Metrics
from swarm.gateway.model_cards import OLLAMA_VERSION, ModelCards
from swarm.gateway.pages import is_open
from swarm.gateway.prompts import ParserThreads, prompts_of
from swarm.gateway.protocols.anthropic import AnthropicMessages, read_counted
from swarm.gateway.protocols.envelopes import envelope_of
from swarm.gateway.protocols.ollama import OllamaChat, OllamaGenerate
from swarm.gateway.protocols.ollama_fields import model_of
from swarm.gateway.protocols.openai import OpenAiChat, OpenAiText
from swarm.gateway.protocols.protocol import Protocol, Reply, ReplyTerms
from swarm.gateway.protocols.responses import OpenAiResponses
from swarm.gateway.requests import Body
from swarm.gateway.service import EndEvent, Service, TextEvent, TokenEvent
from swarm.gateway.sse import EventStream, SlowReader
from swarm.gateway.unknown import as_header

# served under any name of this host and without a key: they reveal nothing
PROBES = frozenset({"/health", "/ready"})
NO_EMBEDDINGS = "models here write text; for embeddings, run a model of embeddings beside this"

# the protocols in which texts are asked for, by path
TEXTS: Mapping[str, Callable[[], Protocol]] = {
    "/v1/chat/completions": OpenAiChat,
    "/v1/completions": OpenAiText,
    "/v1/responses": OpenAiResponses,
    "/v1/messages": AnthropicMessages,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Gateway:
    """The handlers of all routes but those of the pages.

    Args:
        threads: parse bodies.
        keys: authorize requests.
        owners: whose the texts of requests are.
        names: of this host, beside its addresses.
        strict: refuse fields that are unknown, instead of ignoring them.
        tool_parser: how models write calls of tools; None: as their chat templates tell.
    """

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        threads: ParserThreads,
        keys: ApiKeys,
        owners: Owners,
        names: Collection[str] = (),
        strict: bool = False,
        tool_parser: str | None = None,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._threads = threads
        self._keys = keys
        self._owners = owners
        self._names = names
        self._strict = strict
        self._tool_parser = tool_parser
        self._intake = Intake()
        self._cards = ModelCards(service.engines, since=int(time.time()))

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._answer_errors, self._guard])
        app.on_response_prepare.append(_sign)
        for path, protocol in TEXTS.items():
            app.router.add_post(path, partial(self._answer, protocol))
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_post("/api/show", self._show)
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics_text)
        return app

    # Texts.

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        async with self._intake.reservation() as reservation:
            body = await self._read(request, read_counted, reservation)
            models = self._service.engine(body.model).models
            asked = asked_of(body, models.tokenizer, self._tool_parser)
            (prompt,) = await prompts_of(asked, models, self._threads)
            return web.json_response({"input_tokens": len(prompt.ids)})

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        raise BadRequest(NO_EMBEDDINGS, status=404)

    async def _answer(
        self, kind: Callable[[], Protocol], request: web.Request
    ) -> web.StreamResponse:
        protocol = kind()
        async with self._intake.reservation() as reservation:
            body = await self._read(request, protocol.read, reservation)
            self._service.check(body)
            models = self._service.engine(body.model).models
            asked = asked_of(body, models.tokenizer, self._tool_parser)
            terms = ReplyTerms(
                models.checkpoint.fingerprint,
                models.lexicon.spell,
                asked.form,
                asked.opening,
                body.ignored,
            )
            reply = protocol.reply(body, terms)

            def prompts_read(prompts: Sequence[ChatPrompt]) -> None:
                reservation.release()
                reply.begin(prompts)

            owner = self._owners.of(authorization(request.headers))
            texts = self._service.generate(asked, prompts_read, owner)
            headers = as_header(body.ignored)
            async with aclosing(texts) as events:
                if body.stream:
                    return await self._stream(request, events, reply, headers)
                ends = [event async for event in events if isinstance(event, EndEvent)]
                in_order = [
                    echoed(event, body) for event in sorted(ends, key=lambda end: end.index)
                ]
                return web.json_response(reply.whole(in_order), headers=headers)

    async def _read(
        self,
        request: web.Request,
        read: Callable[[bytes, bool], Body],
        reservation: BodyReservation,
    ) -> Body:
        data = await self._intake.read(request, reservation)
        return await self._threads.run(len(data), partial(read, data, self._strict))

    async def _stream(
        self,
        request: web.Request,
        events: AsyncGenerator[TextEvent, None],
        reply: Reply,
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        """Stream the reply.

        A failure before the first event is answered with its own status; a later one becomes the
        last event.
        """
        stream = EventStream(request, headers, reply.content_type, reply.heartbeat)
        with suppress(ConnectionResetError, SlowReader):
            try:
                await self._send(stream, events, reply)
            except (ConnectionResetError, SlowReader):
                raise
            except Exception as error:
                if not stream.is_open:
                    raise
                await stream.write(*reply.failed(self._error_reply(error)))
            await stream.close()
        return stream.response

    async def _send(
        self, stream: EventStream, events: AsyncGenerator[TextEvent, None], reply: Reply
    ) -> None:
        generations = []
        first = True
        while (event := await stream.while_waiting(_next(events))) is not None:
            frames = reply.opened() if first else []
            first = False
            if isinstance(event, TokenEvent):
                frames += reply.token(event)
            else:
                generations.append(event.generation)
                frames += reply.ended(event)
            await stream.write(*frames)
        await stream.write(*reply.closed(generations))

    # Models, health and metrics.

    async def _models(self, request: web.Request) -> web.Response:
        cards = [self._cards.openai(name) for name in self._service.engines]
        return web.json_response({"object": "list", "data": cards})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        self._service.engine(name)
        return web.json_response(self._cards.openai(name))

    async def _tags(self, request: web.Request) -> web.Response:
        cards = [self._cards.ollama(name) for name in self._service.engines]
        return web.json_response({"models": cards})

    async def _show(self, request: web.Request) -> web.Response:
        async with self._intake.reservation() as reservation:
            fields = read_object(await self._intake.read(request, reservation))
        name = str(model_of(fields))
        self._service.engine(name)
        return web.json_response(self._cards.ollama_details(name))

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": OLLAMA_VERSION})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        missing = await self._service.missing()
        answer = {"status": "incomplete" if missing else "ok", "missing": missing}
        return web.json_response(answer, status=503 if missing else 200)

    async def _metrics_text(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type}
        )

    # Middlewares.

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            return self._error_reply(error).response(envelope_of(request.path))

    def _error_reply(self, error: Exception) -> ErrorReply:
        """Count an error, and return the answer to it."""
        reply = _reply_to(error)
        self._metrics.refused(reply.code or "invalid_request")
        return reply

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES:
            host = request.headers.get("Host", "")
            check_origin(request.method, host, request.headers.get("Origin"))
            if not self._keys:
                check_host(host, self._names)
            elif not is_open(request.path) and not self._keys.admit(authorization(request.headers)):
                raise WrongKey
        return await handler(request)


async def _next(events: AsyncGenerator[TextEvent, None]) -> TextEvent | None:
    return await anext(events, None)


def refuse(status: int, why: str) -> web.Response:
    """Answer in OpenAI's envelope where no handler of ours is called."""
    response = _refusal(status, why).response()
    response.headers["X-Request-Id"] = _request_id()
    return response


def _refusal(status: int, why: str) -> ErrorReply:
    if status >= 500:
        return ErrorReply(
            status, "the gateway failed; its log says more", "server_error", "internal_error"
        )
    return ErrorReply(status, f"{why}: docs/gateway.md lists all routes", "invalid_request_error")


def _reply_to(error: Exception) -> ErrorReply:
    """Return the answer to an error; log a bug of ours in full."""
    if isinstance(error, web.HTTPException):
        return _refusal(error.status, error.reason)
    reply = error_reply(error)
    if reply.status == 500:
        log.error("a request failed", exc_info=error)
    return reply


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-Id"] = _request_id()


def _request_id() -> str:
    return secrets.token_hex(8)
