"""What clients are told of the models that are served, in the shape of each protocol."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from swarm.client.chat_template import ChatTemplate
from swarm.client.infilling import infilling_of
from swarm.dialogue.formats import thought_tags
from swarm.errors import NoChatTemplate
from swarm.gateway.service import Engine
from swarm.request import context_tokens

OLLAMA_VERSION = "0.40.0"  # of the interface; some clients ask before they use what is new

Fields = dict[str, Any]


class ModelCards:
    """The cards of some models, by name.

    Args:
        since: when they were first served, in seconds since 1970.
    """

    def __init__(self, engines: Mapping[str, Engine], since: int) -> None:
        self._engines = engines
        self._since = since

    def openai(self, name: str) -> Fields:
        """Return a model as ``GET /v1/models`` tells it."""
        models = self._engines[name].models
        return {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "swarm",
            "max_model_len": context_tokens(models.checkpoint),
            "swarm": {
                "fingerprint": models.checkpoint.fingerprint,
                "layers": models.checkpoint.num_layers,
                "draft": models.draft is not None,
                "chat": bool(getattr(models.tokenizer, "chat_template", None)),
            },
        }

    def ollama(self, name: str) -> Fields:
        """Return a model as ``GET /api/tags`` tells it."""
        checkpoint = self._engines[name].models.checkpoint
        modified = datetime.fromtimestamp(self._since, timezone.utc)
        return {
            "name": name,
            "model": name,
            "modified_at": modified.isoformat().replace("+00:00", "Z"),
            "size": 0,  # no weights are here
            "digest": checkpoint.fingerprint,
            "details": self._details(name),
        }

    def ollama_details(self, name: str) -> Fields:
        """Return a model as ``POST /api/show`` tells it."""
        models = self._engines[name].models
        family = self._details(name)["family"]
        template, abilities = "", ["completion"]
        try:
            template = ChatTemplate(models.tokenizer, name).source
        except NoChatTemplate:
            pass
        else:
            abilities.append("tools")
            if thought_tags(template):
                abilities.append("thinking")
        if infilling_of(models.tokenizer):
            abilities.append("insert")
        return {
            "modelfile": "",
            "parameters": "",
            "template": template,
            "details": self._details(name),
            "model_info": {
                "general.architecture": family,
                f"{family}.context_length": context_tokens(models.checkpoint),
                f"{family}.block_count": models.checkpoint.num_layers,
                f"{family}.embedding_length": models.checkpoint.hidden_size,
            },
            "capabilities": abilities,
        }

    def _details(self, name: str) -> Fields:
        family = self._engines[name].models.checkpoint.config.model_type
        return {
            "parent_model": "",
            "format": "safetensors",
            "family": family,
            "families": [family],
            "parameter_size": "",
            "quantization_level": "",
        }
