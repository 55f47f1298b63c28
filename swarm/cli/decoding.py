"""How a text is decoded: the options that ``swarm generate`` and ``swarm chat`` share."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import click

from swarm.cli.options import ModelName, Number, Text, audit_option, quantization_option
from swarm.demo import locate

if TYPE_CHECKING:
    from swarm.client.client import SwarmClient
    from swarm.config import Network
    from swarm.identity import Identity
    from swarm.request import Options

# swarm.decoding is heavy
RULES = ("strict", "adaptive", "rejection", "near_tie", "typical", "lenient", "random")
AUDIT_PATIENCE_S = 10.0  # for the audit of a text that is already shown


class Auto(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``auto``, or a number."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "auto" and not re.fullmatch(r"\d{1,9}", str(value)):
            self.fail(f"{value!r} is no number; give auto, or a number", param, ctx)
        return value if value == "auto" else int(value)


class Bias(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``ID=NATS``."""

    name = "ID=NATS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        token, _, nats = str(value).partition("=")
        try:
            return int(token), float(nats)
        except ValueError:
            self.fail(f"{value!r} is no bias; give ID=NATS, such as 42=-5", param, ctx)


class Pattern(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A regular expression."""

    name = "REGEX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(re.compile(value).pattern)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression ({error})", param, ctx)


class RuleName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A rule and its settings; `swarm.decoding.rules.choose` reads it."""

    name = "RULE"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(rule) for rule in RULES if rule.startswith(incomplete)]


def decoding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything that may be asked of a client and of one generation, the prompt left out."""
    rules = f"How drafts are judged: {', '.join(RULES)}, with settings as in adaptive:tau=0.5."
    options = (
        click.option(
            "--draft",
            type=ModelName(draft=True),
            default="none",
            metavar="PATH|none",
            help="Draft model.",
        ),
        click.option(
            "--lookup/--no-lookup",
            default=None,
            help=(
                "Draft by looking up what was said before, too; the default where there is no draft"
                " model."
            ),
        ),
        click.option(
            "--window",
            type=Auto(),
            default="auto",
            show_default=True,
            help="Drafted tokens a frame; 0 is plain.",
        ),
        click.option(
            "--depth",
            type=Auto(),
            default="auto",
            show_default=True,
            help="Frames in flight; 1 waits for each.",
        ),
        click.option(
            "--branches",
            default=3,
            show_default=True,
            help="The draft's choices for one place that are sent along.",
        ),
        click.option(
            "--verify",
            type=RuleName(),
            default="strict",
            show_default=True,
            metavar="RULE",
            help=rules,
        ),
        click.option(
            "--key",
            type=Pattern(),
            multiple=True,
            help="Tokens that match are judged strictly, whatever the rule.",
        ),
        click.option(
            "--max-new-tokens",
            default=256,
            show_default=True,
            metavar="N",
            help="Length of the text.",
        ),
        click.option("--temperature", default=0.0, show_default=True, help="0 is greedy."),
        click.option(
            "--top-p",
            default=1.0,
            show_default=True,
            help="Share of the likeliest tokens; 1 keeps all.",
        ),
        click.option("--top-k", default=0, show_default=True, help="0 keeps all tokens."),
        click.option(
            "--seed", type=int, help="Of the sampling; the same seed gives the same text."
        ),
        click.option(
            "--repetition-penalty",
            default=1.0,
            show_default=True,
            help="Above 1 discourages what was said before.",
        ),
        click.option(
            "--logit-bias",
            type=Bias(),
            multiple=True,
            help="Nats to add to a token's logit; may be given often.",
        ),
        click.option(
            "--stop", type=Text(), multiple=True, help="End before this text; may be given often."
        ),
        click.option(
            "--patience",
            "patience_s",
            default=30.0,
            show_default=True,
            metavar="S",
            help="Seconds to wait for missing peers.",
        ),
        click.option(
            "--standby",
            is_flag=True,
            help="Let other peers stand by for those of the chain; they compute it twice.",
        ),
        audit_option,
        # emulated one-way delay
        click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True),
        quantization_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def prepared(
    model: str,
    network: "Network",
    identity: "Identity | None",
    *,
    draft: str,
    key: tuple[str, ...],
    audit: float,
    link_ms: float,
    quantization: str,
    logit_bias: tuple[tuple[int, float], ...],
    **options: Any,
) -> "tuple[SwarmClient, Options]":
    """What `decoding_options` ask for: a client that is yet to be entered, and the options of its
    texts. Raises what `Request.of` raises: what cannot be is said before anything is loaded."""
    from swarm.client.client import SwarmClient
    from swarm.config import state_dir
    from swarm.request import Options, Request

    asked = cast(Options, {**options, "logit_bias": dict(logit_bias)})
    Request.of(asked)
    client = SwarmClient(
        locate(model),
        draft=None if draft == "none" else locate(draft),
        key_patterns={f"matches {pattern}": pattern for pattern in key},
        network=network,
        link_ms=link_ms,
        identity=identity,
        cache=state_dir(),
        audit_rate=audit,
        quantization=quantization,
    )
    return client, asked
