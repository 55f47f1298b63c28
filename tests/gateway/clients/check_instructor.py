"""instructor, in each of its ways to ask for an object."""

from typing import Literal

import instructor
from docs_snippet import client
from openai import OpenAI
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": "What is 1 + 2?"}]
ASKED = {"model": "demo-target", "messages": MESSAGES, "temperature": 0, "max_tokens": 300}


class Sum(BaseModel):
    """What to add."""

    first: int = Field(ge=0, le=9)
    unit: Literal["apples", "coins"]


def _client(mode):
    return instructor.from_openai(
        OpenAI(base_url=client.client.base_url, api_key="no key"), mode=mode
    )


class Anything(BaseModel):
    """What any JSON object is: this mode leaves the fields to the model."""


def the_documented_mode():
    assert isinstance(client.create(response_model=Sum, **ASKED), Sum)


def tools():
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        assert isinstance(_client(mode).create(response_model=Sum, **ASKED), Sum), mode


def json_of_any_kind():
    asked = _client(instructor.Mode.JSON).create(response_model=Anything, **ASKED)
    assert isinstance(asked, Anything)


def parts_of_an_object():
    parts = list(_client(instructor.Mode.TOOLS).create_partial(response_model=Sum, **ASKED))
    assert parts[-1].unit
