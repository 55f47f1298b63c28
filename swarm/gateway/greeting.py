"""The message that a gateway prints once it serves."""

import json
from collections.abc import Sequence


def greeting(url: str, models: Sequence[str], example: str = "Hello") -> str:
    """Return the URL, the models, and a command that asks the first of them ``example``."""
    body = json.dumps(
        {"model": models[0], "messages": [{"role": "user", "content": example}], "temperature": 0}
    )
    return (
        f"Serving {', '.join(models)}. Chat at {url} or ask as OpenAI's API, Ctrl-C ends it:\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    )
