"""Checks of instructions that a program can check: IFEval (Zhou et al. 2023, arXiv 2311.07911).

The data names each instruction by its kind, such as ``punctuation:no_comma``, and gives its
arguments. A check does what the published program does, with these differences:

- Words of the data are looked for as they stand, never as patterns. In the published data no word
  is a pattern.
- ``change_case`` looks at the letters alone, and does not ask whether the language is English.
- ``keywords:letter_frequency`` counts marks, too. The published program replaces them by a random
  letter.

`UNCHECKED` lists the kinds that need a download.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Check = Callable[[str], bool]
Words = Sequence[str]

# Why these kinds are not checked.
UNCHECKED = {
    "language:response_language": "needs a model that tells languages apart",
    "length_constraints:number_sentences": "needs a trained splitter of sentences",
    "change_case:capital_word_frequency": "needs a trained splitter of sentences",
}
RELATIONS = ("at least", "less than")
CONSTRAINED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
MAX_ARGUMENT_CHARS = 4096  # a prompt that is to be repeated is the longest


class UnknownInstruction(ValueError):
    """An instruction of a kind without a check, or with arguments that do not fit its kind."""


def check_of(kind: Any, arguments: Any) -> Check:
    """Return the check of one instruction of the data.

    Args:
        kind: such as ``punctuation:no_comma``.
        arguments: name to value; those that are None count as not given.

    Raises:
        UnknownInstruction: for a kind without a check, and for arguments that are missing, that
            the kind does not have, or that have another type.
    """
    check = CHECKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        raise UnknownInstruction(f"there is no check of the instruction {kind!r}")
    if not isinstance(arguments, dict):
        raise UnknownInstruction(f"the instruction {kind} has no arguments by name")
    given = {name: value for name, value in arguments.items() if value is not None}
    _, *parameters = inspect.signature(check).parameters.values()
    if set(given) != {parameter.name for parameter in parameters}:
        names = ", ".join(parameter.name for parameter in parameters)
        raise UnknownInstruction(f"the instruction {kind} takes {names or 'no arguments'}")
    for parameter in parameters:
        if not _fits(given[parameter.name], parameter):
            raise UnknownInstruction(f"the instruction {kind} cannot take that {parameter.name}")
    return partial(check, **given)


def _fits(value: Any, parameter: inspect.Parameter) -> bool:
    if parameter.annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if parameter.name.endswith("relation"):
        return value in RELATIONS
    if parameter.annotation is Words:
        return isinstance(value, list) and all(map(_is_word, value))
    return _is_word(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= MAX_ARGUMENT_CHARS


# Words, letters and their numbers.


def _has_keywords(text: str, keywords: Words) -> bool:
    return all(_occurrences(word, text) for word in keywords)


def _has_keyword_often(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compares(_occurrences(keyword.strip(), text), relation, frequency)


def _has_no_forbidden_word(text: str, forbidden_words: Words) -> bool:
    whole_words = [rf"\b{re.escape(word)}\b" for word in forbidden_words]
    return not any(re.search(word, text, re.IGNORECASE) for word in whole_words)


def _has_letter_often(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compares(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _has_words(text: str, num_words: int, relation: str) -> bool:
    return _compares(len(re.findall(r"\w+", text)), relation, num_words)


def _has_no_comma(text: str) -> bool:
    return "," not in text


def _is_uppercase(text: str) -> bool:
    return text.isupper()


def _is_lowercase(text: str) -> bool:
    return text.islower()


# Parts of the text.


def _has_divided_paragraphs(text: str, num_paragraphs: int) -> bool:
    filled = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(filled[1:-1]) and sum(filled) == num_paragraphs


def _has_paragraph_that_begins(
    text: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    paragraphs = text.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if filled != num_paragraphs or not 1 <= nth_paragraph <= filled:
        return False
    words = paragraphs[nth_paragraph - 1].split()
    if not words:
        return False
    word = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0]
    return word.lower() == first_word.lower()


def _has_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    heading = rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?"
    return len(re.findall(heading, text)) >= num_sections


def _has_bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def _has_highlights(text: str, num_highlights: int) -> bool:
    once = re.findall(r"\*[^\n\*]*\*", text)
    twice = re.findall(r"\*\*[^\n\*]*\*\*", text)
    return sum(bool(each.strip("*").strip()) for each in (*once, *twice)) >= num_highlights


def _has_title(text: str) -> bool:
    titles = re.findall(r"<<[^\n]+>>", text)
    return any(title.lstrip("<").rstrip(">").strip() for title in titles)


def _has_placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _has_postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    pattern = POSTSCRIPTS.get(marker, re.escape(marker.lower()))
    return re.search(pattern, text.lower()) is not None


# The whole text.


def _is_json(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _is_constrained_answer(text: str) -> bool:
    return any(answer in text for answer in CONSTRAINED_ANSWERS)


def _is_two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    responses = list(filter(None, parts))
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def _repeats_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends_with(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _occurrences(word: str, text: str) -> int:
    return len(re.findall(re.escape(word), text, re.IGNORECASE))


def _compares(count: int, relation: str, limit: int) -> bool:
    return count < limit if relation == "less than" else count >= limit


CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": _has_keywords,
    "keywords:frequency": _has_keyword_often,
    "keywords:forbidden_words": _has_no_forbidden_word,
    "keywords:letter_frequency": _has_letter_often,
    "length_constraints:number_words": _has_words,
    "length_constraints:number_paragraphs": _has_divided_paragraphs,
    "length_constraints:nth_paragraph_first_word": _has_paragraph_that_begins,
    "detectable_content:number_placeholders": _has_placeholders,
    "detectable_content:postscript": _has_postscript,
    "detectable_format:number_bullet_lists": _has_bullets,
    "detectable_format:number_highlighted_sections": _has_highlights,
    "detectable_format:multiple_sections": _has_sections,
    "detectable_format:title": _has_title,
    "detectable_format:json_format": _is_json,
    "detectable_format:constrained_response": _is_constrained_answer,
    "combination:two_responses": _is_two_responses,
    "combination:repeat_prompt": _repeats_prompt,
    "startend:end_checker": _ends_with,
    "startend:quotation": _is_quoted,
    "change_case:english_capital": _is_uppercase,
    "change_case:english_lowercase": _is_lowercase,
    "punctuation:no_comma": _has_no_comma,
}
