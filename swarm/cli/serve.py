"""``swarm serve``: a gateway until Ctrl-C."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.options import (
    FILE,
    ModelName,
    Number,
    audit_option,
    entrance,
    entrance_options,
    quantization_option,
)
from swarm.demo import locate
from swarm.model.folder import folder_of, look
from swarm.terminal.signals import run

if TYPE_CHECKING:
    from swarm.client.client import SwarmClient
    from swarm.gateway.server import Settings

NO_DRAFT = "none"
OPEN_WARNING = (
    "warning: whoever reaches this address may use this gateway, and reads over a connection that"
    " is not encrypted; give --api-keys FILE, and let a proxy that speaks TLS stand in front"
)


@click.command()
@click.argument("models", nargs=-1, required=True, type=ModelName(), metavar="MODEL...")
@click.option(
    "--draft",
    "drafts",
    multiple=True,
    metavar="PATH|MODEL=PATH",
    help="Draft model: one for all, or one for MODEL or its name; may be given several times.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; 0.0.0.0 is all of them.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes any free one.",
)
@click.option(
    "--api-keys", type=FILE, help="File of keys, one a line: who sends none of them is refused."
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A name of this host that browsers may come by.",
)
@click.option(
    "--concurrency",
    default=32,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Texts written at once.",
)
@click.option(
    "--queue",
    default=64,
    show_default=True,
    type=click.IntRange(0, 65536),
    help="Texts that may wait beyond these.",
)
@click.option(
    "--speaks-for",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help=(
        "Clients that this gateway asks for: peers grant it so many times what one may ask, within"
        " bounds."
    ),
)
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=Number(0, 3600),
    help="Seconds for answers at the end.",
)
@audit_option
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object.")
@quantization_option
@entrance_options
def serve(
    models: tuple[str, ...],
    drafts: tuple[str, ...],
    host: str,
    port: int,
    api_keys: Path | None,
    allow_host: tuple[str, ...],
    concurrency: int,
    queue: int,
    speaks_for: int,
    grace: float,
    audit: float,
    quantization: str,
    as_json: bool,
) -> None:
    """Serve MODEL to OpenAI clients and browsers, over the peers of a swarm."""
    from swarm.gateway.keys import ApiKeys

    keys = ApiKeys.load(api_keys)
    pairs = _pairs(models, drafts)
    for _, draft in pairs:
        if draft:
            look(locate(draft), draft=True)
    net, identity = entrance()
    from swarm.client.client import SwarmClient
    from swarm.config import state_dir
    from swarm.gateway.server import Settings

    settings = Settings(
        host=host,
        port=port,
        keys=keys,
        names=frozenset(name.lower() for name in allow_host),
        places=concurrency,
        waiting=queue,
        grace_s=grace,
    )
    clients = [
        SwarmClient(
            locate(model),
            draft=locate(draft) if draft else None,
            network=net,
            identity=identity,
            cache=state_dir(),
            audit_rate=audit,
            quantization=quantization,
            speaks_for=speaks_for,
        )
        for model, draft in pairs
    ]
    run(_serve(clients, settings, as_json))


async def _serve(clients: "Sequence[SwarmClient]", settings: "Settings", as_json: bool) -> None:
    """Until Ctrl-C or SIGTERM; before the gateway listens, either ends the start."""
    from swarm.gateway.greeting import greeting
    from swarm.gateway.server import serving, stopped

    async with AsyncExitStack() as life:
        for client in clients:
            await life.enter_async_context(client)
        url = await life.enter_async_context(serving(clients, settings))
        if settings.open_to_all:
            click.echo(OPEN_WARNING, err=True)
        names = [client.models.checkpoint.name for client in clients]
        click.echo(json.dumps({"url": url, "models": names}) if as_json else greeting(url, names))
        await stopped()


def _pairs(models: Sequence[str], drafts: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each model with its draft, if it has one.

    ``MODEL=PATH`` names the model as it was given, or by its name.
    """
    given = {_name(model): model for model in models} | {model: model for model in models}
    named: dict[str, str] = {}
    usual: str | None = None
    for draft in drafts:
        model, equals, path = draft.partition("=")
        if equals and model in given:
            named[given[model]] = path
        elif equals:
            names = ", ".join(map(_name, models))
            raise click.UsageError(
                f"--draft {draft} names a model that is not served; name one of {names}"
            )
        elif usual is not None:
            raise click.UsageError(
                "--draft says twice what drafts for all models; give MODEL=PATH for each"
            )
        else:
            usual = draft
    found = [(model, named.get(model, usual)) for model in models]
    return [(model, None if draft == NO_DRAFT else draft) for model, draft in found]


def _name(model: str) -> str:
    """The name of a model's folder, or its hub id: that of its checkpoint without a
    quantization."""
    folder = folder_of(locate(model))
    return model if folder is None else folder.name
