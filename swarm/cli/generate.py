"""``swarm generate``: generate one text."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from swarm.cli.decoding import AUDIT_PATIENCE_S, DecodingOptions, decoding_options
from swarm.cli.options import (
    entrance,
    entrance_options,
    json_option,
)
from swarm.cli.params import ModelName, TextParam
from swarm.terminal import console
from swarm.terminal.activity import activity
from swarm.terminal.signals import run

if TYPE_CHECKING:
    from swarm.errors import SwarmIncomplete
    from swarm.model.compute import ComputeOptions
    from swarm.outputs import Generation


@click.command()
@click.argument("model", type=ModelName())
@click.argument("prompt", type=TextParam())
@decoding_options
@click.option(
    "--explain",
    is_flag=True,
    help="Also print every token's fate: kept, relaxed, corrected, and why.",
)
@entrance_options
@json_option
def generate(
    model: str,
    prompt: str,
    explain: bool,
    as_json: bool,
    decoding: DecodingOptions,
    compute: "ComputeOptions",
) -> None:
    """Continue PROMPT with MODEL (a folder, a GGUF file, or a hub id)."""
    net, identity = entrance()
    from swarm.errors import SwarmIncomplete

    options = decoding.of_text()
    client = decoding.client(model, net, identity, compute)

    async def write() -> "tuple[Generation, SwarmIncomplete | None]":
        with activity(as_json) as waiting_for:
            waiting_for(f"loading {model} and entering the network {net.name}")
            async with client:
                stream = client.stream(prompt, **options)
                waiting_for("finding a chain of peers")
                failure = None
                try:
                    async for piece in stream:
                        waiting_for("")
                        if not as_json:
                            console.show_piece(piece)
                except SwarmIncomplete as error:
                    failure = error
                if not as_json:
                    console.show_summary(stream.result)
                if failure is not None:
                    return stream.result, failure
                audits = await client.settle(AUDIT_PATIENCE_S)
                stats = replace(stream.result.stats, audits=audits)
                return replace(stream.result, stats=stats), None

    generation, failure = run(write())
    if as_json:
        click.echo(json.dumps(generation.as_dict(explain)))
    else:
        console.show_audits(generation.stats.audits)
        if explain:
            console.show_fates(generation.pieces)
    if failure is not None:
        raise failure
