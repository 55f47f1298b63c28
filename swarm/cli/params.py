"""Types of the commands' parameters, which check what is given at once."""

import math
import os
from pathlib import Path
from typing import Any

import click

from swarm.demo import DRAFT, TARGET, locate
from swarm.errors import ConfigError
from swarm.model.compute import DEVICE_NAMES, draft_vocab_of, is_device
from swarm.model.folder import look

FILE = click.Path(path_type=Path, dir_okay=False)
NO_MODEL = "none"  # as a draft model
MAX_COMPLETIONS = 200  # names of models, after Tab


class ModelName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A folder, a hub id, or the name of a model that comes with the project.

    A folder is checked at once, so that an invalid model fails before a network is entered.

    Args:
        draft: whether it names a draft model.
    """

    name = "MODEL"

    def __init__(self, draft: bool = False) -> None:
        self._draft = draft

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip() or "\0" in str(value):
            choices = "a checkpoint folder, a GGUF file, a Hugging Face model id, or demo-target"
            self.fail(f"give {choices}", param, ctx)
        if value != NO_MODEL:
            look(locate(str(value)), self._draft)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Complete models of the project and downloaded ones, or paths if none of them fits."""
        from click.shell_completion import CompletionItem

        names = [name for name in (TARGET, DRAFT, *_downloaded()) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in names[:MAX_COMPLETIONS]] or [
            CompletionItem(incomplete, type="file")
        ]


class DeviceName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A device to compute on, which need not be there."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_device(str(value)):
            self.fail(f"{value!r} is no device; give {DEVICE_NAMES}", param, ctx)
        return str(value)


class DraftVocab(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """The tokens that a draft model's head computes: a word, or how many."""

    name = "auto|all|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        try:
            return draft_vocab_of(str(value))
        except ConfigError as error:
            self.fail(error.problem, param, ctx)


class Number(click.FloatRange):  # type: ignore[misc, unused-ignore]
    """A number between two bounds, and not "nan", which passes comparisons with both."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class TextParam(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Text that a tokenizer can read.

    Python turns arguments that are not in the terminal's encoding into lone surrogates, which have
    no UTF-8; these are refused.
    """

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(
                "it holds bytes that are not text in this terminal's encoding; give it as UTF-8",
                param,
                ctx,
            )
        return str(value)


def _downloaded() -> list[str]:
    """Return the ids of models in the hub's cache, in folders ``models--ORGANISATION--NAME``."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        folders = sorted(os.listdir(HF_HUB_CACHE))
    except OSError:
        return []
    return [
        each.removeprefix("models--").replace("--", "/")
        for each in folders
        if each.startswith("models--")
    ]
