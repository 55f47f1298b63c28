"""What agents, editors and libraries send in their first requests is answered.

The bodies are those of litellm, LangChain, instructor, pydantic-ai, LlamaIndex, Roo Code, Continue,
Open WebUI and others, as they were seen.
"""

import pytest

from helpers.gateway_in_process import PROBLEM, chat
from swarm.demo import TARGET

SMALL = {"type": "integer", "minimum": 0, "maximum": 9}
SUM = {
    "type": "object",
    "properties": {"a": SMALL},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": SUM}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
HISTORY = [
    {"role": "user", "content": PROBLEM.question},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "user", "content": PROBLEM.question, "id": "m1", "cache_control": {}},
]
PARTS = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SUM, "strict": True}}
CHATS = {
    "litellm": {},
    "litellm, penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.2},
    "litellm, a tool": {"tools": [TOOL]},
    "litellm, JSON": {"response_format": {"type": "json_object"}},
    "LangChain, streamed": {"stream": True, "stream_options": {"include_usage": True}},
    "LangChain, structured output": {"response_format": SCHEMA, "parallel_tool_calls": False},
    "LangChain, a chosen tool": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
    },
    "pydantic-ai, a required tool": {"tools": [TOOL], "tool_choice": "required"},
    "openai, parts": {"messages": [{"role": "user", "content": PARTS}]},
    "openai, calls in the history": {"messages": HISTORY, "tools": [TOOL]},
    "openai, nothing asked for": {"max_tokens": None, "stop": ["."], "tool_choice": "auto"},
    "openai, effort": {"reasoning_effort": "low"},
    "openai, more": {"min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}},
    "openai, empty": {"messages": [{"role": "user", "content": ""}]},
    "Roo Code": {
        "tools": [TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "thinking": {"type": "enabled"},
    },
    "opencode": {
        "tools": [TOOL],
        "tool_choice": "auto",
        "max_tokens": 32_000,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "Open WebUI": {"chat_id": "1", "session_id": "2", "options": {"num_ctx": 4096}},
    "OpenRouter": {"provider": {}, "usage": {"include": True}, "transforms": [], "reasoning": {}},
    "llama.cpp": {"cache_prompt": True, "keep_alive": "5m", "top_k": -1, "top_p": 0},
    "vLLM, no limit but a minimum": {"max_tokens": None, "min_tokens": 2},
    "vLLM": {"ignore_eos": True, "min_tokens": 2, "guided_json": SUM, "stop_token_ids": [7]},
    "an answer sent back": {
        "messages": [
            *HISTORY[:1],
            {"role": "assistant", "content": "4", "refusal": None, "swarm": [{}], "audio": None},
            *HISTORY[-1:],
        ]
    },
}
OTHERS = {
    "LlamaIndex": ("/v1/completions", {"prompt": "x"}),
    "lm-eval": (
        "/v1/completions",
        {"prompt": [[5, 6, 7]], "max_tokens": 0, "logprobs": 1, "echo": True},
    ),
    "openai, Responses": ("/v1/responses", {"input": "x", "max_output_tokens": 16}),
    "Claude": ("/v1/messages", {"messages": HISTORY[:1], "max_tokens": 8}),
    "Home Assistant": ("/api/chat", {"messages": HISTORY[:1], "stream": False}),
}


async def answered(served, path, body):
    async with served.http.post(served.url + path, json=body) as response:
        text = await response.text()
    assert response.status == 200, text
    assert '"error": {' not in text


@pytest.mark.parametrize("name", CHATS)
async def test_a_chat_is_answered(served, name):
    await answered(served, "/v1/chat/completions", {**chat(max_tokens=40), **CHATS[name]})


@pytest.mark.parametrize("name", OTHERS)
async def test_other_protocols_are_answered(served, name):
    path, body = OTHERS[name]
    await answered(served, path, {"model": TARGET, **body})
