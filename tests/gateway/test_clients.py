"""Clients of other projects work unchanged: curl, OpenAI's, and Hugging Face's InferenceClient."""

import asyncio
import json
from typing import Literal

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from openai import AsyncOpenAI, BadRequestError
from pydantic import BaseModel, Field

from helpers.gateway_in_process import PROBLEM, chat
from helpers.loopback import soon
from swarm.demo import TARGET
from swarm.demo.problems import answer_of

MESSAGES = [{"role": "user", "content": PROBLEM.question}]


async def _curl(*arguments):
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await soon(process.communicate())
    assert process.returncode == 0
    return out.decode()


async def test_curl_gets_replies_streams_and_errors(served):
    where = (f"{served.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d")
    reply = json.loads(await _curl(*where, json.dumps(chat())))
    text = reply["choices"][0]["message"]["content"]
    assert answer_of(text) == PROBLEM.answer
    events = (await _curl("--no-buffer", *where, json.dumps(chat(stream=True)))).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    status = await _curl("-o", "/dev/null", "-w", "%{http_code} %{content_type}", *where, "{")
    assert status.startswith("400 application/json")


class Task(BaseModel):
    kind: Literal["sum", "product"]
    steps: list[bool] = Field(max_length=2)


async def test_openais_package_parses_an_answer_that_a_schema_constrains(served):
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="no key") as client:
        options = {"model": TARGET, "messages": MESSAGES, "max_tokens": 500, "seed": 1}
        reply = await soon(client.chat.completions.parse(response_format=Task, **options))
        assert isinstance(reply.choices[0].message.parsed, Task)
        async with client.chat.completions.stream(response_format=Task, **options) as stream:
            final = await soon(stream.get_final_completion())
        assert isinstance(final.choices[0].message.parsed, Task)
        with pytest.raises(BadRequestError, match="unclosed group"):
            await soon(
                client.chat.completions.create(extra_body={"guided_regex": "a(b"}, **options)
            )


@pytest.fixture
def hugging(served):
    with InferenceClient(base_url=f"{served.url}/v1", api_key="no key") as client:
        yield client


async def test_hugging_faces_client_gets_replies_and_streams(served, hugging):
    options = {"model": TARGET, "temperature": 0.0, "max_tokens": 200}
    reply = await asyncio.to_thread(
        hugging.chat_completion, MESSAGES, logprobs=True, top_logprobs=2, **options
    )
    text = reply.choices[0].message.content
    assert answer_of(text) == PROBLEM.answer
    assert len(reply.choices[0].logprobs.content) == reply.usage.completion_tokens
    stopped = await asyncio.to_thread(hugging.chat_completion, MESSAGES, stop=["####"], **options)
    assert text.startswith(stopped.choices[0].message.content + "####")

    def stream():
        chunks = hugging.chat_completion(MESSAGES, stream=True, **options)
        return [chunk.choices[0] for chunk in chunks if chunk.choices]

    choices = await asyncio.to_thread(stream)
    assert "".join(choice.delta.content or "" for choice in choices) == text
    assert choices[-1].finish_reason == "stop"


async def test_hugging_faces_client_gets_errors(served, hugging):
    with pytest.raises(HfHubHTTPError, match="404"):
        await asyncio.to_thread(hugging.chat_completion, MESSAGES, model="other")
