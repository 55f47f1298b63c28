"""The demonstration: two small models of our own, shipped with the project, and a swarm on one
machine."""

from pathlib import Path

MODELS = Path(__file__).parent / "models"
TARGET, DRAFT = "demo-target", "demo-draft"


def locate(model: str) -> str:
    """The folder of a shipped model if ``model`` is its name and no folder of that name is at hand,
    else ``model``."""
    if model in (TARGET, DRAFT) and not Path(model).is_dir():
        return str(MODELS / model)
    return model
