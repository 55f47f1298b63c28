"""What a model thinks before it answers, which a chat folds away."""

from collections.abc import Callable, Sequence
from typing import Any

from swarm.client.chat_template import ChatTemplate
from swarm.dialogue.answer import AnswerForm, AnswerParser
from swarm.dialogue.formats import thought_tags
from swarm.errors import NoChatTemplate

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
        ending = self._spell(prompt[-ENDING_TOKENS:]) if prompt else ""
        return AnswerParser(self._form, self._form.opened_by(ending))


NO_THOUGHTS = Thoughts(AnswerForm(), lambda _: "")
