"""What a model thinks before it answers, which a chat folds away."""

from collections.abc import Callable, Sequence
from typing import Any

from swarm.client.chat_template import ChatTemplate
from swarm.decoding.constraint import Constraint
from swarm.dialogue.answer import AnswerForm, AnswerParser
from swarm.dialogue.formats import thought_tags
from swarm.dialogue.outlines import outline_of
from swarm.errors import NoChatTemplate
from swarm.request import Options

ENDING_TOKENS = 16  # of a prompt, which may open the thoughts


class Thoughts:
    """Tells thoughts from the text of an answer.

    Args:
        form: of the answers.
        spell: returns the text of some tokens, control tokens included.
    """

    def __init__(self, form: AnswerForm, spell: Callable[[Sequence[int]], str]) -> None:
        self._form = form
        self._spell = spell

    @classmethod
    def of(cls, tokenizer: Any, raw: bool = False) -> "Thoughts":
        """Return those of a model; a ``raw`` chat, without its template, has none."""
        try:
            template = "" if raw else ChatTemplate(tokenizer, "").source
        except NoChatTemplate:
            template = ""
        return cls(AnswerForm(tags=thought_tags(template)), tokenizer.decode)

    def parser(self, prompt: Sequence[int]) -> AnswerParser:
        """Return the parser of the answer to a prompt."""
        return AnswerParser(self._form, self._form.opened_by(self._ending(prompt)))

    def before(self, options: Options, prompt: Sequence[int]) -> Options:
        """Return the options of the answer to a prompt, whose constraint leaves thoughts free."""
        constraint = options.get("constraint")
        if not isinstance(constraint, Constraint):
            return options
        outline = outline_of(constraint, self._form, self._ending(prompt))
        return {**options, "constraint": outline}

    def _ending(self, prompt: Sequence[int]) -> str:
        return self._spell(prompt[-ENDING_TOKENS:]) if prompt else ""


NO_THOUGHTS = Thoughts(AnswerForm(), lambda _: "")
