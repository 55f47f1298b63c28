"""How much KV cache a peer has promised away, in tokens."""

from swarm.errors import SwarmError


class CacheFull(SwarmError):
    """A session asks for more cache than is free."""

    def __init__(self, asked_tokens: int, free_tokens: int, total_tokens: int) -> None:
        super().__init__(asked_tokens, free_tokens, total_tokens)
        self.asked_tokens, self.free_tokens, self.total_tokens = asked_tokens, free_tokens, total_tokens

    def __str__(self) -> str:
        return (
            f"{self.asked_tokens} tokens of cache asked for, {self.free_tokens} of {self.total_tokens} are free; "
            "ask for fewer tokens or try again later"
        )


class CacheBudget:
    """Reservations against a fixed number of tokens: what is promised to a session is there when it needs it."""

    def __init__(self, total_tokens: int) -> None:
        self.total_tokens = total_tokens
        self.free_tokens = total_tokens

    def reserve(self, tokens: int) -> None:
        """Raises `CacheFull` and reserves nothing if there is not enough."""
        if tokens > self.free_tokens:
            raise CacheFull(tokens, self.free_tokens, self.total_tokens)
        self.free_tokens -= tokens

    def release(self, tokens: int) -> None:
        """The other half of `reserve`."""
        self.free_tokens += tokens
        assert self.free_tokens <= self.total_tokens
