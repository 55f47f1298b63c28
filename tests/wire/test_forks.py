"""A fork names a beginning of another session that can be there."""

import pytest
from pydantic import ValidationError

from swarm.wire.fields import MAX_SESSION_TOKENS, SESSION_ID_BYTES
from swarm.wire.forks import Fork

SESSION = b"0" * SESSION_ID_BYTES


def test_the_beginning_may_be_one_token_or_all_but_the_last() -> None:
    for count in (1, MAX_SESSION_TOKENS - 1):
        fork = Fork(session=SESSION, root=1, count=count)
        assert Fork.model_validate(fork.model_dump()) == fork


@pytest.mark.parametrize(
    "change",
    [
        {"root": 0},  # the beginning holds no token
        {"root": 1 << 31},
        {"count": 0},
        {"count": MAX_SESSION_TOKENS},  # the new session would have no room for a token
        {"count": 1.0},
        {"session": SESSION[1:]},
        {"more": 1},
    ],
    ids=str,
)
def test_what_cannot_be_a_beginning_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fork.model_validate({"session": SESSION, "root": 5, "count": 3, **change})
