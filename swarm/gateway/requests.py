"""The bodies of requests, bounded, and turned into options of the SDK.

What becomes of fields that are not part of the interface: `swarm.gateway.unknown`.
"""

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)

from swarm.decoding.constraint import Constraint
from swarm.decoding.sampling import MAX_SEED
from swarm.decoding.shaping import MAX_BIASES
from swarm.gateway.errors import BadRequest
from swarm.gateway.formats import (
    GUIDED,
    ResponseFormat,
    StructuredOutputs,
    constraint_of,
    guided,
)
from swarm.gateway.messages import MESSAGE, ChatMessage
from swarm.gateway.thinking import (
    MAX_VARIABLES,
    Effort,
    ReasoningField,
    Thinking,
    as_thinking,
    thinking_variables,
)
from swarm.gateway.tools import (
    MAX_TOOLS,
    TOOL,
    Choice,
    Function,
    FunctionChoice,
    Tool,
    ToolChoice,
    offered,
)
from swarm.gateway.unknown import MAX_NAMES, Known
from swarm.gateway.values import (
    NewTokens,
    Part,
    Seed,
    Stops,
    TokenBiases,
    Whole,
    check_ids,
    read_likely,
    read_prompts,
    read_switch,
    read_whole,
)
from swarm.request import MAX_LOGPROBS, MAX_STOP_TOKENS, Depth, Options, WindowSize

MAX_CHOICES = 16  # texts that one request may ask for
MAX_MESSAGES = 2048
TEXT_TOKENS = 16  # new tokens of a completion by default, as in OpenAI's API
CHAT_TOKENS = 4096  # likewise of a chat, if they fit; each reserves cache on all peers


class StreamOptions(Part):
    include_usage: bool = False
    include_obfuscation: bool = False  # no effect: links are encrypted, or the reader's own


class Body(Part):
    """The fields that chats and completions have in common.

    None stands for the default of the SDK, if nothing else is said.
    """

    model: str = Field(min_length=1, max_length=512)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Whole = Field(default=1, ge=1, le=MAX_CHOICES)
    max_tokens: NewTokens = None
    seed: Seed = None
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = 1.0
    top_k: Whole = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: TokenBiases = Field(default={}, max_length=MAX_BIASES)
    stop: Stops = Field(default=[])
    stop_token_ids: list[Whole] = Field(default=[], max_length=MAX_STOP_TOKENS)
    ignore_eos: bool = False
    min_tokens: Whole = Field(default=0, ge=0)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    verify: str = Field(default="strict", max_length=256)
    window: Annotated[WindowSize, BeforeValidator(read_whole)] = "auto"
    depth: Annotated[Depth, BeforeValidator(read_whole)] = "auto"
    skip_special_tokens: bool = True  # in the text
    explain: bool = False  # return every token's fate
    _ignored: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _guided(cls, fields: Any) -> Any:
        return guided(fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _has_one_format(self) -> "Body":
        constraint_of(self.response_format, self.structured_outputs)
        return self

    @classmethod
    def known(cls) -> Known:
        """Return the names of all fields, and of the fields of objects in them."""
        return {
            **dict.fromkeys((*cls.model_fields, *GUIDED)),
            "stream_options": dict.fromkeys(StreamOptions.model_fields),
        }

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of fields that have no effect on the text."""
        return tuple(self._ignored)

    def ignore(self, *names: str) -> None:
        """Note fields that have no effect on the text, for the reply to name them."""
        room = MAX_NAMES - len(self._ignored)
        self._ignored += names[:room]

    @property
    def constraint(self) -> Constraint | None:
        """The format that the answer has to have."""
        return constraint_of(self.response_format, self.structured_outputs)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        return 1

    @property
    def texts(self) -> int:
        """The number of requested texts."""
        return self.prompts * self.n

    @property
    def new_tokens(self) -> tuple[int | None, int]:
        """The requested maximum, if any, and the default, which the model's context may cut."""
        return self.max_tokens, TEXT_TOKENS

    @property
    def num_logprobs(self) -> int | None:
        """`Options.logprobs`: chats and completions each have it in a field of their own."""
        return None

    @property
    def keep(self) -> bool:
        """`Options.keep`: whether another request is likely to continue this text."""
        return False

    def options(self, number: int) -> Options:
        """Return the options of the ``number``-th text; texts of a request differ in seeds."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": None if self.seed is None else (self.seed + number) & MAX_SEED,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": {int(token): bias for token, bias in self.logit_bias.items()},
            "stop": self.stop,
            "stop_token_ids": self.stop_token_ids or None,
            "min_tokens": self.min_tokens,
            "constraint": self.constraint,
            "verify": self.verify,
            "window": self.window,
            "depth": self.depth,
            "logprobs": self.num_logprobs,
            "keep": self.keep,
        }


class ChatBody(Body):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: NewTokens = None
    tools: list[Tool] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: Choice = ToolChoice()
    parallel_tool_calls: bool = True
    functions: list[Function] = Field(default=[], max_length=MAX_TOOLS)  # the older form of tools
    function_call: FunctionChoice = ToolChoice()
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = Field(default={}, max_length=MAX_VARIABLES)
    enable_thinking: bool | None = None
    thinking: Annotated[Thinking | None, BeforeValidator(as_thinking)] = None
    reasoning: ReasoningField | None = None
    reasoning_effort: Effort | None = None
    _offered: list[Tool] = PrivateAttr(default_factory=list)

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The functions that the answer may call, in OpenAI's form."""
        return [tool.as_schema() for tool in self._offered]

    @property
    def strict(self) -> dict[str, str]:
        """The names of strict functions that the answer may call, by the field that says so."""
        path = "functions[{}].strict" if self.functions else "tools[{}].function.strict"
        named = [tool.function for tool in self.tools]
        offered = {tool.function.name for tool in self._offered if tool.function is not None}
        return {
            path.format(at): function.name
            for at, function in enumerate(named)
            if function is not None and function.strict and function.name in offered
        }

    logprobs: Annotated[bool, BeforeValidator(read_switch)] = False
    top_logprobs: Whole | None = Field(default=None, ge=0, le=MAX_LOGPROBS)

    @model_validator(mode="after")
    def _agrees(self) -> "ChatBody":
        if self.functions:
            self._take_functions()
        field = "function_call" if self.functions else "tool_choice"
        self._offered = offered(self.tools, self.tool_choice, field)
        self.ignore(*(f"tools[{at}]" for at, each in enumerate(self.tools) if not each.is_function))
        if self.top_logprobs and not self.logprobs:
            raise BadRequest("this needs logprobs to be true", "top_logprobs")
        if (
            self.max_tokens
            and self.max_completion_tokens
            and self.max_tokens != self.max_completion_tokens
        ):
            problem = "this differs from max_tokens; give only one of them"
            raise BadRequest(problem, "max_completion_tokens")
        return self

    def _take_functions(self) -> None:
        """Read functions as tools; an answer calls one of them at most."""
        if self.tools:
            raise BadRequest("functions and tools mean the same; give tools", "functions")
        self.tools = [Tool(function=each) for each in self.functions]
        self.tool_choice = self.function_call
        self.parallel_tool_calls = False

    @classmethod
    def known(cls) -> Known:
        return {
            **super().known(),
            "functions": dict.fromkeys(Function.model_fields),
            "function_call": None,
            "messages": MESSAGE,
            "tools": TOOL,
            "tool_choice": None,
            "thinking": dict.fromkeys(Thinking.model_fields),
            "reasoning": dict.fromkeys(ReasoningField.model_fields),
        }

    @property
    def nbytes(self) -> int:
        """The size of all texts that the template reads."""
        return sum(message.nbytes for message in self.messages) + len(json.dumps(self.schemas))

    @property
    def continues(self) -> bool:
        """Whether the answer goes on from the end of the last message."""
        last = self.messages[-1]
        return last.role == "assistant" and (last.prefix or self.continue_final_message)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for the chat template."""
        asked = [self.thinking.switch if self.thinking else None, self.enable_thinking]
        if self.reasoning is not None:
            asked.append(self.reasoning.switch)
        return thinking_variables(asked, self.effort) | self.chat_template_kwargs

    @property
    def effort(self) -> str | None:
        """How much the model is to think."""
        return self.reasoning_effort or (self.reasoning.effort if self.reasoning else None)

    @property
    def new_tokens(self) -> tuple[int | None, int]:
        """No more than fit: many clients ask every model for 32,000 tokens."""
        return None, self.max_completion_tokens or self.max_tokens or CHAT_TOKENS

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def keep(self) -> bool:
        return self.n == 1


class TextBody(Body):
    """``POST /v1/completions``."""

    prompt: Annotated[
        list[str | list[int]], BeforeValidator(read_prompts), AfterValidator(check_ids)
    ] = Field(min_length=1, max_length=MAX_CHOICES)
    logprobs: Annotated[int | None, BeforeValidator(read_likely)] = Field(
        default=None, ge=0, le=MAX_LOGPROBS
    )
    suffix: str = ""  # that follows the text
    echo: bool = False  # the text begins with the prompt
    scores_only: bool = False  # nothing is generated: ``max_tokens`` is 0, with `echo`
    add_special_tokens: bool = True  # those that the tokenizer puts before every text

    @model_validator(mode="before")
    @classmethod
    def _scores(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        no_text = fields.get("echo") is True and fields.get("max_tokens") == 0
        return {**fields, "scores_only": no_text}

    @model_validator(mode="after")
    def _is_whole(self) -> "TextBody":
        if self.echo and self.stream:
            raise BadRequest("this needs a reply that is not streamed", "echo")
        if self.suffix and self.echo:
            raise BadRequest("a text before a suffix does not begin with its prompt", "echo")
        if self.suffix and not all(isinstance(prompt, str) for prompt in self.prompt):
            raise BadRequest("a suffix needs prompts of text", "suffix")
        return self

    @property
    def prompts(self) -> int:
        return len(self.prompt)

    @property
    def new_tokens(self) -> tuple[int | None, int]:
        if self.scores_only:
            return 1, 1  # it is not told
        return super().new_tokens

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs
