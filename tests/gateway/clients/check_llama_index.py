"""LlamaIndex's `OpenAILike`: texts, chats, streams and tools."""

from typing import Annotated

from docs_snippet import model as documented
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

QUESTION = "What is 1 + 2?"
CHAT = [ChatMessage(role="user", content=QUESTION)]
Digit = Annotated[int, Field(ge=0, le=9)]
model = documented.model_copy(update={"temperature": 0})
brief = model.model_copy(update={"max_tokens": 16})


class Sum(BaseModel):
    """What to add."""

    first: Digit


def _add(a: Digit, b: Digit) -> int:
    """Add two digits."""
    return a + b


def texts():
    assert brief.complete(QUESTION).text
    assert brief.chat(CHAT).message.content
    assert "".join(part.delta or "" for part in brief.stream_chat(CHAT))


def completions():
    plain = brief.model_copy(update={"is_chat_model": False})
    assert plain.complete(QUESTION).raw.choices[0].finish_reason
    assert list(plain.stream_complete(QUESTION))


def tools():
    tool = FunctionTool.from_defaults(_add)
    asked = model.model_copy(update={"is_function_calling_model": True})
    reply = asked.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    (call,) = asked.get_tool_calls_from_response(reply)
    assert (call.tool_name, call.tool_kwargs.keys()) == ("_add", {"a", "b"})


def structured_output():
    asked = model.model_copy(update={"is_function_calling_model": True})
    assert isinstance(asked.as_structured_llm(Sum).complete(QUESTION).raw, Sum)
