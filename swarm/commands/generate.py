"""``swarm generate``: one text."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from swarm import console
from swarm.activity import activity
from swarm.commands.decoding import AUDIT_PATIENCE_S, Text, decoding_options
from swarm.commands.running import run
from swarm.demo import locate
from swarm.options import (
    ModelName,
    bootstrap_option,
    entered_through,
    identity_option,
    json_option,
    lan_option,
    named_identity,
    named_network,
    network_option,
    quantization_option,
)

if TYPE_CHECKING:
    from swarm.failover import SwarmIncomplete
    from swarm.results import Generation


@click.command()
@click.argument("model", type=ModelName())
@click.argument("prompt", type=Text())
@decoding_options
@click.option("--explain", is_flag=True, help="Also print every token's fate: kept, relaxed, corrected, and why.")
@quantization_option
@identity_option
@bootstrap_option
@network_option
@lan_option
@json_option
def generate(
    model: str,
    prompt: str,
    draft: str,
    bootstrap: tuple[str, ...],
    network: str | None,
    lan: bool,
    audit: float,
    link_ms: float,
    quantization: str,
    as_json: bool,
    explain: bool,
    key: tuple[str, ...],
    logit_bias: tuple[tuple[int, float], ...],
    **options: Any,
) -> None:
    """Continue PROMPT with MODEL (a local folder or a hub id)."""
    from swarm.config import state_dir

    net, identity = entered_through(named_network(bootstrap, network), lan), named_identity()
    from swarm.client import SwarmClient
    from swarm.failover import SwarmIncomplete
    from swarm.request import Options, Request

    asked = cast(Options, {**options, "logit_bias": dict(logit_bias)})
    Request.of(asked)  # what cannot be is said before anything is loaded
    client = SwarmClient(
        locate(model),
        draft=None if draft == "none" else locate(draft),
        key_patterns={f"matches {pattern}": pattern for pattern in key},
        network=net,
        link_ms=link_ms,
        identity=identity,
        cache=state_dir(),
        audit_rate=audit,
        quantization=quantization,
    )

    async def write() -> "tuple[Generation, SwarmIncomplete | None]":
        with activity(as_json) as waiting_for:
            waiting_for(f"loading {model} and entering the network {net.name}")
            async with client:
                stream = client.stream(prompt, **asked)
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
                return replace(stream.result, stats=replace(stream.result.stats, audits=audits)), None

    generation, failure = run(write())
    if as_json:
        click.echo(json.dumps(generation.as_dict(explain)))
    else:
        console.show_caught(generation.stats.audits)
        if explain:
            console.show_fates(generation.pieces)
    if failure is not None:
        raise failure
