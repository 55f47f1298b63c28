"""How vocabularies of byte-level BPE split text into words, by llama.cpp's names for them.

The expressions are those of ``llm_tokenizer_bpe`` in llama.cpp's ``llama-vocab.cpp``, as the
publishers' own tokenizers write them. A merge never crosses the border of a word, so another
expression would give other tokens.
"""

from dataclasses import dataclass

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORDS = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*")
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{WORDS[0]}|{WORDS[1]}|\p{{N}}{REST}"
GPT4O = rf"{WORDS[0]}{ENDING}|{WORDS[1]}{ENDING}|\p{{N}}{{1,3}}{REST}"


@dataclass(frozen=True)
class Splitting:
    """How a vocabulary splits text.

    Attributes:
        patterns: of words, one after the other: each splits what those before it left.
        whole_words: whether a word that is a token is not put together by merges.
        bos: whether texts begin with a token of their own, where a file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False


_GPT2 = Splitting((GPT2,))
_DIGITS = Splitting((DIGIT, GPT2))
_LLAMA3 = Splitting((LLAMA3,), whole_words=True, bos=True)
_QWEN2 = Splitting((QWEN2,))
_TEKKEN = Splitting((TEKKEN,), whole_words=True, bos=True)
_GPT4O = Splitting((GPT4O,))

SPLITTINGS = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "olmo": _GPT2,
    "mpt": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "dbrx": Splitting((LLAMA3,)),
    "smaug-bpe": Splitting((LLAMA3,)),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "megrez": _QWEN2,
    "tekken": _TEKKEN,
    "gpt-4o": _GPT4O,
    "llama4": _GPT4O,
}
