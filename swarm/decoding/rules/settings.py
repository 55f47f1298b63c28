"""Numbers that a rule can be tuned with, each with its range and its meaning."""

import math
from dataclasses import field, fields
from typing import Any

from swarm.errors import ExitCode, SwarmError


class RuleError(SwarmError):
    """A rule that does not exist, or a setting that it does not take."""

    exit_code = ExitCode.USAGE

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(subject, problem)
        self.subject, self.problem = subject, problem

    def __str__(self) -> str:
        return f"verification {self.subject!r} is not possible: {self.problem}"


def Setting(default: float, least: float, most: float, meaning: str) -> Any:
    """A dataclass field for a number from ``least`` to ``most``."""
    return field(default=default, metadata={"least": least, "most": most, "meaning": meaning})


def settings_of(rule: Any) -> dict[str, Any]:
    """The settings of a rule's class or object: name to dataclass field."""
    return {f.name: f for f in fields(rule) if "meaning" in f.metadata}


def check_settings(rule: Any) -> None:
    """Raises `RuleError` for a number out of its range."""
    for name, setting in settings_of(rule).items():
        value, least, most = (
            getattr(rule, name),
            setting.metadata["least"],
            setting.metadata["most"],
        )
        if not (
            isinstance(value, (int, float)) and math.isfinite(value) and least <= value <= most
        ):
            raise RuleError(f"{name}={value}", f"give {name} from {least:g} to {most:g}")
