"""pydantic-ai's agents: tools and types of output, over chats and Responses."""

from typing import Literal

from docs_snippet import provider
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

QUESTION = "What is 1 + 2?"
BRIEF = {"max_tokens": 16, "temperature": 0}
ROOMY = {**BRIEF, "max_tokens": 200}  # for JSON, which has to come to its end
model = OpenAIChatModel("demo-target", provider=provider)


class Sum(BaseModel):
    """What to add."""

    first: int = Field(ge=0, le=9)
    unit: Literal["apples", "coins"]


def _add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def a_text():
    assert Agent(model).run_sync(QUESTION, model_settings=BRIEF).output


def a_tool():
    result = Agent(model, tools=[_add]).run_sync(QUESTION, model_settings=BRIEF)
    assert result.output


def types_of_output():
    for output in (Sum, ToolOutput(Sum), NativeOutput(Sum)):
        result = Agent(model, output_type=output).run_sync(QUESTION, model_settings=ROOMY)
        assert isinstance(result.output, Sum), output


def a_stream():
    with Agent(model).run_stream_sync(QUESTION, model_settings=BRIEF) as result:
        assert list(result.stream_text(delta=True))


def responses():
    asked = OpenAIResponsesModel("demo-target", provider=provider)
    assert Agent(asked).run_sync(QUESTION, model_settings=BRIEF).output
    for output in (ToolOutput(Sum), NativeOutput(Sum)):
        result = Agent(asked, output_type=output).run_sync(QUESTION, model_settings=ROOMY)
        assert isinstance(result.output, Sum), output
