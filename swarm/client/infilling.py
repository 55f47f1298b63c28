"""Prompts for the text between two others, for models that learned to fill in the middle.

Such models were trained on texts whose middle was moved to the end, between special tokens
(Bavarian et al. 2022, arXiv 2207.14255). A vocabulary that has these tokens tells the family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

# A character that no tokenizer joins with what follows it.
GUARD = "☺"


@dataclass(frozen=True)
class FimForm:
    """The tokens before each part of a text.

    Attributes:
        middle: that the answer follows; empty where it follows the prefix.
        guarded: SentencePiece would begin the suffix with a space that is not there.
    """

    prefix: str
    suffix: str
    middle: str = ""
    guarded: bool = False


# As llama.cpp (src/llama-vocab.cpp, special_fim_*) and the models' own cards have them. Except for
# Codestral's, the prefix comes first.
FORMS = (
    # Qwen 2.5 Coder, CodeGemma, Granite 4
    FimForm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    FimForm("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code, StableCode
    FimForm("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    FimForm("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek Coder, V2 and V3
    FimForm("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM 4.5, CodeGeeX 4
    # Meta's llama/generation.py, infilling_prompt_tokens
    FimForm("▁<PRE>", "▁<SUF>", "▁<MID>", guarded=True),  # CodeLlama
    # mistral_common's InstructTokenizer.encode_fim
    FimForm("[PREFIX]", "[SUFFIX]", guarded=True),  # Codestral
)
# Beside its end of text, what a model writes when the middle is complete.
ENDS = (
    *("<|endoftext|>", "<|fim_pad|>", "<fim_pad>", "<fim-pad>", "▁<EOT>"),
    *("<|file_sep|>", "<|file_separator|>", "<file_sep>", "<|repo_name|>", "<repo_name>"),
)


@dataclass(frozen=True)
class Infilling:
    """How a model is asked for the text between two others.

    Attributes:
        ends: tokens that end the middle, beside those that end a text.
    """

    tokenizer: PreTrainedTokenizerBase
    form: FimForm
    ids: Mapping[str, int]
    ends: frozenset[int]

    def prompt(self, prefix: str, suffix: str, begun: bool = True) -> list[int]:
        """Return the token ids after which the middle follows.

        Args:
            begun: begin with the token that opens every text, if the model has one.
        """
        form, ids = self.form, self.ids
        before = self._encode(prefix)
        behind = self._behind_guard(suffix) if form.guarded else self._encode(suffix)
        first = self._first() if begun else []
        if not form.middle:
            return [*first, ids[form.suffix], *behind, ids[form.prefix], *before]
        parts = [ids[form.prefix], *before, ids[form.suffix], *behind, ids[form.middle]]
        return [*first, *parts]

    def _behind_guard(self, text: str) -> Sequence[int]:
        """Return the ids of a text that does not begin a text."""
        guard, guarded = self._encode(GUARD), self._encode(GUARD + text)
        return guarded[len(guard) :] if guarded[: len(guard)] == guard else self._encode(text)

    def _first(self) -> list[int]:
        first: list[int] = self.tokenizer("").input_ids[:1]
        return first if first == [self.tokenizer.bos_token_id] else []

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


@lru_cache(maxsize=16)
def infilling_of(tokenizer: PreTrainedTokenizerBase) -> Infilling | None:
    """Return how the model of a tokenizer is asked; None if its vocabulary has no tokens for it."""
    vocabulary = tokenizer.get_vocab()
    for form in FORMS:
        tokens = [token for token in (form.prefix, form.suffix, form.middle) if token]
        if all(token in vocabulary for token in tokens):
            ids = {token: vocabulary[token] for token in tokens}
            ends = {vocabulary[token] for token in ENDS if token in vocabulary}
            return Infilling(tokenizer, form, ids, frozenset({*ends, *ids.values()}))
    return None
