"""Sessions that begin with a copy of what peers hold of another one.

Texts of one client often begin with the same tokens: the instructions and tools of an agent, the
turns of a conversation that goes on in two ways. A peer that has computed them once copies the rows
of its cache in place of computing them again.
"""

from typing import Annotated

from pydantic import Field

from swarm.wire.fields import MAX_SESSION_TOKENS, Serial, SessionId, StrictModel


class Fork(StrictModel):
    """A beginning of another session of the same client, with which a new one begins.

    It is the first ``count`` tokens of the text that ends with the token of serial ``root``, which
    has been answered there.
    """

    session: SessionId
    root: Annotated[Serial, Field(ge=1)]
    count: Annotated[int, Field(ge=1, lt=MAX_SESSION_TOKENS)]
