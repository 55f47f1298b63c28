"""``swarm serve``: run a gateway until Ctrl-C."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.grouping import grouped
from swarm.cli.options import (
    audit_option,
    compute_options,
    count_option,
    entrance,
    entrance_options,
    grace_option,
    head_option,
    port_option,
    quantization_option,
)
from swarm.cli.params import FILE, ModelName
from swarm.demo import locate
from swarm.dialogue.formats import BY_NAME
from swarm.model.folder import look, name_of, path_of
from swarm.terminal.signals import run

if TYPE_CHECKING:
    from swarm.client.client import SwarmClient
    from swarm.client.head_choice import HeadChoice
    from swarm.gateway.keys import ApiKeys
    from swarm.gateway.server import Settings
    from swarm.model.compute import ComputeOptions

NO_DRAFT = "none"
TOOL_FORMATS = sorted(BY_NAME)
OPEN_WARNING = (
    "warning: everyone who can reach this address may use this gateway, and the connection is not"
    " encrypted; give --api-keys FILE, and put a TLS proxy in front of it"
)


@dataclass(frozen=True)
class GatewayOptions:
    """How the gateway serves."""

    host: str
    port: int
    api_keys: Path | None
    allow_host: tuple[str, ...]
    concurrency: int
    queue: int
    grace: float
    remember: bool
    strict: bool
    tool_parser: str | None

    def settings(self, keys: "ApiKeys") -> "Settings":
        """Return the gateway's settings. ``keys`` are those of `api_keys`."""
        from swarm.gateway.server import Settings

        return Settings(
            host=self.host,
            port=self.port,
            keys=keys,
            names=frozenset(name.lower() for name in self.allow_host),
            places=self.concurrency,
            waiting=self.queue,
            grace_s=self.grace,
            remember=self.remember,
            strict=self.strict,
            tool_parser=self.tool_parser,
        )


@dataclass(frozen=True)
class GatewayClientOptions:
    """How the gateway's clients use the swarm."""

    speaks_for: int
    audit: float
    quantization: str
    head: "HeadChoice"


@click.command()
@click.argument("models", nargs=-1, required=True, type=ModelName(), metavar="MODEL...")
@click.option(
    "--draft",
    "drafts",
    multiple=True,
    metavar="PATH|MODEL=PATH",
    help=(
        "Draft model or head (mtp: MODEL's own): one for all, or one for MODEL or its name; may be"
        " given several times."
    ),
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is all.",
)
@port_option(8000)
@click.option(
    "--api-keys", type=FILE, help="File of keys, one per line; requests without one are refused."
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name of this host that browsers may use.",
)
@count_option("--concurrency", 32, (1, 4096), "Texts generated at once.")
@count_option("--queue", 64, (0, 65536), "Texts that may wait beyond these.")
@count_option(
    "--speaks-for",
    1,
    (1, 10_000),
    "Clients behind this gateway: peers multiply what one client may ask by this, within bounds.",
)
@click.option(
    "--remember/--no-remember",
    default=True,
    show_default=True,
    help="Keep texts in memory, to draft later ones of the same API key from them.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse requests with unknown fields, instead of ignoring these and naming them.",
)
@click.option(
    "--tool-parser",
    type=click.Choice(TOOL_FORMATS),
    help="How the models write calls of tools; by default their chat templates tell.",
)
@grace_option(10.0, "Seconds for running answers when it stops.")
@audit_option
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as one JSON object.")
@quantization_option
@head_option
@compute_options
@entrance_options
@grouped(GatewayOptions, "gateway")
@grouped(GatewayClientOptions, "options")
def serve(
    models: tuple[str, ...],
    drafts: tuple[str, ...],
    gateway: GatewayOptions,
    options: GatewayClientOptions,
    compute: "ComputeOptions",
    as_json: bool,
) -> None:
    """Serve MODEL to OpenAI clients and browsers, over the peers of a swarm."""
    from swarm.gateway.keys import ApiKeys

    keys = ApiKeys.load(gateway.api_keys)
    pairs = _pairs(models, drafts)
    for _, draft in pairs:
        if draft:
            look(locate(draft), draft=True)
    net, identity = entrance()
    from swarm.client.client import SwarmClient
    from swarm.config import state_dir

    clients = [
        SwarmClient(
            locate(model),
            draft=locate(draft) if draft else None,
            network=net,
            identity=identity,
            cache=state_dir(),
            audit_rate=options.audit,
            quantization=options.quantization,
            head=options.head,
            speaks_for=options.speaks_for,
            **asdict(compute),
        )
        for model, draft in pairs
    ]
    run(_serve(clients, gateway.settings(keys), as_json))


async def _serve(clients: "Sequence[SwarmClient]", settings: "Settings", as_json: bool) -> None:
    """Serve until Ctrl-C or SIGTERM, which also end the start."""
    from swarm.gateway.greeting import greeting
    from swarm.gateway.server import serving, stopped

    async with AsyncExitStack() as stack:
        for client in clients:
            await client.check_models()
        for client in clients:
            await stack.enter_async_context(client)
        url = await stack.enter_async_context(serving(clients, settings))
        if settings.open_to_all:
            click.echo(OPEN_WARNING, err=True)
        names = [client.models.checkpoint.name for client in clients]
        click.echo(json.dumps({"url": url, "models": names}) if as_json else greeting(url, names))
        await stopped()


def _pairs(models: Sequence[str], drafts: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return each model with its draft, if it has one.

    ``MODEL=PATH`` names the model as it was given, or by its name.
    """
    given = {_name(model): model for model in models} | {model: model for model in models}
    named: dict[str, str] = {}
    default: str | None = None
    for draft in drafts:
        model, equals, path = draft.partition("=")
        if equals and model in given:
            named[given[model]] = path
        elif equals:
            names = ", ".join(map(_name, models))
            raise click.UsageError(
                f"--draft {draft} names a model that is not served; name one of {names}"
            )
        elif default is not None:
            raise click.UsageError("two --draft are for all models; give MODEL=PATH for each model")
        else:
            default = draft
    found = [(model, named.get(model, default)) for model in models]
    return [(model, None if draft == NO_DRAFT else draft) for model, draft in found]


def _name(model: str) -> str:
    """Return the name of a model's folder or file, or its hub id: its checkpoint's, unquantized."""
    path = path_of(locate(model))
    return model if path is None else name_of(path)
