"""A request that is understood: what is asked of a model, in any protocol."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from swarm.decoding.constraint import Constraint
from swarm.dialogue.answer import AnswerForm
from swarm.gateway.chat import Chat
from swarm.gateway.requests import Body, ChatBody, TextBody


@dataclass(frozen=True)
class Asked:
    """What is asked of a model.

    Attributes:
        body: the fields of the request.
        source: what makes the prompts: a chat, or the texts of a completion.
        spelled: special tokens whose text is part of the answers.
    """

    body: Body
    source: Chat | TextBody
    spelled: frozenset[int]

    @property
    def form(self) -> AnswerForm:
        """The form of the answers."""
        return self.source.form if isinstance(self.source, Chat) else AnswerForm()

    @property
    def opening(self) -> str:
        """The text that an answer is made to begin with."""
        return self.source.forced.opening if isinstance(self.source, Chat) else ""

    @property
    def constraint(self) -> Constraint | None:
        """What the answers have to look like behind their opening."""
        return self.source.constraint


def asked_of(
    body: Body, tokenizer: PreTrainedTokenizerBase, tool_parser: str | None = None
) -> Asked:
    """Prepare a request for a model. Arguments and errors are those of `Chat.of`."""
    if isinstance(body, ChatBody):
        chat = Chat.of(body, tokenizer, tool_parser)
        return Asked(body, chat, _special(tokenizer, body, chat.form.markers))
    assert isinstance(body, TextBody)
    return Asked(body, body, _special(tokenizer, body, ()))


def _special(
    tokenizer: PreTrainedTokenizerBase, body: Body, markers: tuple[str, ...]
) -> frozenset[int]:
    """Return the special tokens that have text: those of calls and thoughts, or all."""
    if body.skip_special_tokens and not markers:
        return frozenset()
    return frozenset(
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and (not body.skip_special_tokens or token.content in markers)
    )
