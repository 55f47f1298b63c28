"""How a text is decoded: the options that ``swarm generate`` and ``swarm chat`` share."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from swarm.cli.grouping import Command, grouped
from swarm.cli.options import (
    audit_option,
    compute_options,
    head_option,
    quantization_option,
)
from swarm.cli.params import FILE, ModelName, Number, TextParam
from swarm.demo import locate
from swarm.util.importing import uncollected

if TYPE_CHECKING:
    from swarm.client.client import SwarmClient
    from swarm.client.head_choice import HeadChoice
    from swarm.config import Network
    from swarm.decoding.constraint import Constraint
    from swarm.identity import Identity
    from swarm.model.compute import ComputeOptions
    from swarm.request import Options

# as in `swarm.decoding.rules`, which takes long to import
RULES = ("strict", "adaptive", "rejection", "near_tie", "typical", "lenient", "random")
AUDIT_PATIENCE_S = 10.0  # for the audit of a text that the user has already


class Auto(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``auto``, or a whole number."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "auto" and not re.fullmatch(r"\d{1,9}", str(value)):
            self.fail(f"{value!r} is no number; give auto, or a number", param, ctx)
        return value if value == "auto" else int(value)


class Bias(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A token id and what to add to its logit, as ``ID=NATS``."""

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
    """A rule and its settings, which `swarm.decoding.rules.choose` checks."""

    name = "RULE"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(rule) for rule in RULES if rule.startswith(incomplete)]


DRAFTING = (
    click.option(
        "--draft",
        type=ModelName(draft=True),
        default="none",
        metavar="PATH|mtp|none",
        help="Draft model, or a head for MODEL; mtp is the one inside MODEL's own checkpoint.",
    ),
    click.option(
        "--lookup/--no-lookup",
        default=None,
        help="Copy what followed the same tokens before, too; by default where that is likely.",
    ),
    click.option(
        "--learn/--no-learn",
        default=True,
        show_default=True,
        help="Let the draft learn from what MODEL chooses; the text stays the same.",
    ),
    click.option(
        "--window",
        type=Auto(),
        default="auto",
        show_default=True,
        help="Drafted tokens per frame; 0 is plain decoding.",
    ),
    click.option(
        "--depth",
        type=Auto(),
        default="auto",
        show_default=True,
        help="Frames in flight; 1 waits for each answer.",
    ),
    click.option(
        "--branches",
        default=3,
        show_default=True,
        help="The draft's choices for one position that are sent.",
    ),
)
VERIFYING = (
    click.option(
        "--verify",
        type=RuleName(),
        default="strict",
        show_default=True,
        metavar="RULE",
        help=f"How drafts are judged: {', '.join(RULES)}, with settings as in adaptive:tau=0.5.",
    ),
    click.option(
        "--key",
        type=Pattern(),
        multiple=True,
        help="Judge tokens that match strictly, whatever the rule.",
    ),
)
SAMPLING = (
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
        help="Share of the most likely tokens; 1 keeps all.",
    ),
    click.option("--top-k", default=0, show_default=True, help="0 keeps all tokens."),
    click.option(
        "--min-p",
        default=0.0,
        show_default=True,
        help="Least share of the likeliest token's probability; 0 keeps all tokens.",
    ),
    click.option(
        "--seed", type=int, help="Seed of the sampling; the same seed gives the same text."
    ),
    click.option(
        "--repetition-penalty",
        default=1.0,
        show_default=True,
        help="Above 1 makes tokens of the text so far less likely.",
    ),
    click.option(
        "--presence-penalty",
        default=0.0,
        show_default=True,
        help="Nats (-2 to 2) to take from tokens that the answer holds.",
    ),
    click.option(
        "--frequency-penalty",
        default=0.0,
        show_default=True,
        help="The same for each time that it holds them.",
    ),
    click.option(
        "--logit-bias",
        type=Bias(),
        multiple=True,
        help="Nats to add to a token's logit; may be given several times.",
    ),
    click.option(
        "--stop",
        type=TextParam(),
        multiple=True,
        help="End before this text; may be given several times.",
    ),
)
CONSTRAINING = (
    click.option(
        "--json-schema",
        type=FILE,
        metavar="FILE",
        help="The answer is JSON that this schema allows.",
    ),
    click.option("--regex", type=TextParam(), help="The answer matches this regular expression."),
    click.option(
        "--grammar",
        type=FILE,
        metavar="FILE",
        help="The answer is in the language of this Lark grammar.",
    ),
)
SWARM = (
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
        help="Keep a second peer ready for each of the chain; everything is computed twice.",
    ),
    audit_option,
    # emulated one-way delay
    click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True),
    quantization_option,
    head_option,
)


@dataclass(frozen=True)
class DecodingOptions:
    """What `decoding_options` read from the command line."""

    draft: str
    lookup: bool | None
    learn: bool
    window: int | Literal["auto"]
    depth: int | Literal["auto"]
    branches: int
    verify: str
    key: tuple[str, ...]  # regular expressions
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]  # (token id, nats)
    stop: tuple[str, ...]
    json_schema: Path | None
    regex: str | None
    grammar: Path | None
    patience_s: float
    standby: bool
    audit: float
    link_ms: float
    quantization: str
    head: "HeadChoice"

    def of_text(self, keep: bool = False) -> "Options":
        """Return the options of one text, checked before anything is loaded.

        Args:
            keep: as in `swarm.request.Options`.

        Raises:
            What `Request.of` raises.
            ConfigError: for more than one constraint, or a file that cannot be read.
        """
        from swarm.request import Options, Request

        options = Options(
            lookup=self.lookup,
            learn=self.learn,
            window=self.window,
            depth=self.depth,
            branches=self.branches,
            verify=self.verify,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=dict(self.logit_bias),
            stop=self.stop,
            constraint=self._constraint(),
            patience_s=self.patience_s,
            standby=self.standby,
            keep=keep,
        )
        Request.of(options)
        return options

    def _constraint(self) -> "Constraint | None":
        from swarm.decoding.constraint import KINDS, Constraint, Kind
        from swarm.errors import ConfigError

        given: dict[Kind, Path | str] = {
            kind: text
            for kind, text in zip(
                KINDS[:3], (self.json_schema, self.regex, self.grammar), strict=True
            )
            if text is not None
        }
        if not given:
            return None
        if len(given) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError("constraint", f"{options} exclude each other; give one of them")
        ((kind, text),) = given.items()
        if isinstance(text, Path):
            try:
                text = text.read_text("utf-8")
            except (OSError, ValueError) as error:
                raise ConfigError(kind, f"{text} cannot be read ({error})") from None
        return Constraint(kind, text)

    def client(
        self,
        model: str,
        network: "Network",
        identity: "Identity | None",
        compute: "ComputeOptions",
    ) -> "SwarmClient":
        """Return a client of ``model``, which is not entered yet."""
        with uncollected():
            from swarm.client.client import SwarmClient
            from swarm.config import state_dir

        return SwarmClient(
            locate(model),
            draft=None if self.draft == "none" else locate(self.draft),
            key_patterns={f"matches {pattern}": pattern for pattern in self.key},
            network=network,
            link_ms=self.link_ms,
            identity=identity,
            cache=state_dir(),
            audit_rate=self.audit,
            quantization=self.quantization,
            head=self.head,
            **asdict(compute),
        )


def decoding_options(command: Command) -> Command:
    """Add all options of a client and of one text, as the arguments ``decoding``, ``compute``."""
    command = compute_options(command)
    command = grouped(DecodingOptions, "decoding")(command)
    for option in reversed((*DRAFTING, *VERIFYING, *SAMPLING, *CONSTRAINING, *SWARM)):
        command = option(command)
    return command
