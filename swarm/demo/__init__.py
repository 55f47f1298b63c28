"""The demonstration: two small models, shipped with the project, and a swarm on one machine."""

from pathlib import Path

MODELS = Path(__file__).parent / "models"
TARGET = "demo-target"
DRAFT = "demo-draft"


def locate(model: str) -> str:
    """Return the folder of a shipped model, or ``model`` if it names another model or a folder."""
    if model in (TARGET, DRAFT) and not Path(model).is_dir():
        return str(MODELS / model)
    return model
