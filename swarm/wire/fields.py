r"""Types of fields that several messages and records have: one of each.

Every string is matched as a whole: ``\z`` is the end of the text, never a place before a last line
break.
"""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from swarm.config import NETWORK_NAME_PATTERN

MAX_MODEL_LAYERS = 1_000
MAX_VOCABULARY = 1 << 24  # tokens
MAX_ADDRESS = 200  # characters: an address at a relay whose own name has up to 50
MAX_TEXT = 300  # characters of an error message
SESSION_ID_BYTES = 16  # random
MAX_SESSION_TOKENS = 1 << 20


class StrictModel(BaseModel):
    """Base of all that comes from outside: immutable, no type is converted, no field is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def printable(text: str) -> str:
    """Return ``text`` with a space in place of every character that is not shown as itself.

    Such are control characters, line breaks and changes of direction: text of strangers is shown in
    terminals and logs.
    """
    return "".join(each if each.isprintable() else " " for each in text)


# the dtypes in which hidden states travel
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

NetworkName = Annotated[str, Field(pattern=rf"^{NETWORK_NAME_PATTERN}\z")]
# the form of an id; whether it holds a key says `swarm.identity.public_key_of`
PeerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{10,100}\z")]
# of a model's configuration and weights
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\z")]
# SHA-256 of the DER of a TLS certificate, in hex
Certificate = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
# see `swarm.network.links.address`
Address = Annotated[str, Field(min_length=3, max_length=MAX_ADDRESS)]
# why something failed, in the other side's words
ReasonText = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(printable)]
SessionId = Annotated[bytes, Field(min_length=SESSION_ID_BYTES, max_length=SESSION_ID_BYTES)]
# of a token in its session's stream; see `swarm.wire.token_tree`
Serial = Annotated[int, Field(ge=0, lt=1 << 31)]
