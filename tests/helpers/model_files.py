"""Changes to the files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def edit(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(model: Path) -> Path:
    """Return the first file of a model's weights."""
    return next(model.glob("model-00001-of-*.safetensors"))


def add(model: Path, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor beside those of a shard, and into the index."""
    path = shard(model)
    save_file({**load_file(path), name: tensor}, path)
    index = model / "model.safetensors.index.json"
    edit(index, weight_map={**json.loads(index.read_text())["weight_map"], name: path.name})
