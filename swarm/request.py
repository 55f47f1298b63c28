"""What may be asked of a client, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from swarm.decoding.sampling import Sampling
from swarm.errors import SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.wire.messages import MAX_SESSION_TOKENS
from swarm.wire.tensors import MAX_FRAME_TOKENS

MAX_WINDOW = MAX_FRAME_TOKENS // 2  # a window and the tokens before it share a frame
DEFAULT_WINDOW = 8  # the paper's
DEFAULT_NEW_TOKENS = 256


class RequestError(SwarmError):
    """A generation that cannot be asked for."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"{self.name} = {self.value!r} is not possible; give {self.allowed}"


class PromptTooLong(SwarmError):
    """Prompt and new tokens do not fit the model's context, or the longest session that peers speak of."""

    def __init__(self, prompt_tokens: int, new_tokens: int, limit: int) -> None:
        super().__init__(prompt_tokens, new_tokens, limit)
        self.prompt_tokens, self.new_tokens, self.limit = prompt_tokens, new_tokens, limit

    def __str__(self) -> str:
        return (
            f"the prompt has {self.prompt_tokens} tokens and {self.new_tokens} new ones are asked for, but the model's "
            f"context ends at {self.limit}; shorten the prompt or ask for fewer new tokens"
        )


@dataclass(frozen=True)
class Request:
    """How to generate.

    Raises:
        RequestError: for a value out of range.
    """

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    window: int = DEFAULT_WINDOW  # drafted tokens a loop at most; 0 is plain decoding
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RequestError("max_new_tokens", self.max_new_tokens, "a positive number of tokens")
        if not 0 <= self.window <= MAX_WINDOW:
            raise RequestError("window", self.window, f"0 (plain decoding) to {MAX_WINDOW} drafted tokens")

    def check_prompt(self, prompt: Sequence[int], checkpoint: Checkpoint) -> None:
        """Raises `RequestError` or `PromptTooLong` if the model cannot take these token ids."""
        if not prompt:
            raise RequestError("prompt", "", "a prompt of at least one token")
        for token in prompt:
            if not 0 <= token < checkpoint.vocab_size:
                raise RequestError("prompt token", token, f"token ids from 0 to {checkpoint.vocab_size - 1}")
        limit = min(checkpoint.max_positions or MAX_SESSION_TOKENS, MAX_SESSION_TOKENS)
        if len(prompt) + self.max_new_tokens > limit:
            raise PromptTooLong(len(prompt), self.max_new_tokens, limit)
