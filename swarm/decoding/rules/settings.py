"""The settings of a rule: numbers, each with its range and its meaning."""

import math
from dataclasses import field, fields
from typing import Any

from swarm.errors import RuleError


def Setting(default: float, least: float, most: float, meaning: str) -> Any:
    """Return a dataclass field for a number from ``least`` to ``most``."""
    return field(default=default, metadata={"least": least, "most": most, "meaning": meaning})


def settings_of(rule: Any) -> dict[str, Any]:
    """Return the settings of a rule's class or object, name to dataclass field."""
    return {f.name: f for f in fields(rule) if "meaning" in f.metadata}


def check_settings(rule: Any) -> None:
    """Check all settings of a rule.

    Raises:
        RuleError: for a number out of its range.
    """
    for name, setting in settings_of(rule).items():
        value = getattr(rule, name)
        least = setting.metadata["least"]
        most = setting.metadata["most"]
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        if not (is_number and least <= value <= most):
            raise RuleError(f"{name}={value}", f"give {name} from {least:g} to {most:g}")
