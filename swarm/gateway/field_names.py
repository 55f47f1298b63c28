"""Names of fields in the words of the protocol that was asked, for errors."""

import re
from collections.abc import Sequence

from swarm.gateway.errors import BadRequest

# Regular expressions for the beginning of a field's name, with what stands there instead.
Renames = Sequence[tuple[str, str]]


def in_own_words(error: BadRequest, renames: Renames) -> BadRequest:
    """Return an error that names its field as the client does."""
    param = error.param
    for ours, theirs in renames if param else ():
        assert param is not None
        if found := re.match(rf"{ours}(?![^.\[])", param):
            rest = param[found.end() :]
            return BadRequest(error.problem, found.expand(theirs) + rest, error.code, error.status)
    return error


def of_messages(origins: Sequence[str]) -> Renames:
    """Return the renames of a chat's messages, each of which was made of a client's field."""
    return [(rf"messages\[{index}\](?:\.content)?", each) for index, each in enumerate(origins)]
