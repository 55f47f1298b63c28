"""Requests of Anthropic's and Ollama's protocols without any package of theirs."""

import httpx
from docs_snippet import client

ADDRESS = str(client.base_url).removesuffix("/v1/")
ASKED = {"model": "demo-target", "messages": [{"role": "user", "content": "What is 1 + 2?"}]}


def _post(path, **body):
    answer = httpx.post(ADDRESS + path, json={**ASKED, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def anthropics_messages():
    assert _post("/v1/messages", max_tokens=16)["content"][0]["text"]


def ollamas_chat():
    options = {"num_predict": 16}
    assert _post("/api/chat", stream=False, options=options)["message"]["content"]
