"""A request that is understood: what is asked of a model, in any protocol."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from swarm.client.chat_template import ChatPrompt
from swarm.client.infilling import Infilling, infilling_of
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline
from swarm.dialogue.answer import AnswerForm
from swarm.gateway.chat import Chat
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import Body, ChatBody, TextBody


@dataclass(frozen=True)
class Asked:
    """What is asked of a model.

    Attributes:
        body: the fields of the request.
        source: what makes the prompts: a chat, or the texts of a completion.
        spelled: special tokens whose text is part of the answers.
        infilling: how the text before a suffix is asked for, if there is one.
    """

    body: Body
    source: Chat | TextBody
    spelled: frozenset[int]
    infilling: Infilling | None = None

    @property
    def form(self) -> AnswerForm:
        """The form of the answers."""
        return self.source.form if isinstance(self.source, Chat) else AnswerForm()

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer, beside those of the model and of the request."""
        return self.infilling.ends if self.infilling is not None else frozenset()

    @property
    def opening(self) -> str:
        """The text that an answer is made to begin with."""
        return self.source.forced.opening if isinstance(self.source, Chat) else ""

    def constraint(self, prompt: ChatPrompt) -> Constraint | Outline | None:
        """Return what the answers to a prompt have to look like behind their opening."""
        if isinstance(self.source, Chat):
            return self.source.constraint(prompt.ending)
        return self.source.constraint


def asked_of(
    body: Body, tokenizer: PreTrainedTokenizerBase, tool_parser: str | None = None
) -> Asked:
    """Prepare a request for a model.

    Arguments are those of `Chat.of`, and so are errors; `BadRequest` is also raised for a suffix
    where the model cannot fill in the middle.
    """
    if isinstance(body, ChatBody):
        chat = Chat.of(body, tokenizer, tool_parser)
        return Asked(body, chat, _special(tokenizer, body, chat.form.markers))
    assert isinstance(body, TextBody)
    infilling = _infilling(tokenizer) if body.suffix else None
    return Asked(body, body, _special(tokenizer, body, ()), infilling)


def _infilling(tokenizer: PreTrainedTokenizerBase) -> Infilling:
    found = infilling_of(tokenizer)
    if found is None:
        problem = (
            "this model never learned to fill in the middle: its vocabulary has no tokens for it;"
            " leave the suffix out"
        )
        raise BadRequest(problem, "suffix", "unsupported_parameter")
    return found


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
