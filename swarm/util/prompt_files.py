"""Prompts out of published files, such as Spec-Bench, GSM8K, HumanEval and IFEval.

Each line is a JSON object. What it holds says what it is:

- ``turns``: the questions of a conversation, of which the first one is taken (Spec-Bench,
  MT-Bench);
- ``question``: a question (GSM8K);
- ``prompt`` with ``entry_point``: the beginning of a program (HumanEval);
- ``prompt``: an instruction (IFEval).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.util.json_lines import UnreadableData, read_json_lines

# Spec-Bench takes over the categories of MT-Bench (Zheng et al. 2023) as one kind of work (Xia et
# al. 2024, arXiv 2401.07851, section 4).
_MT_BENCH = frozenset(
    {"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"}
)


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        kind: of work, such as ``summarization``.
        question: it is a message to an assistant, and not the beginning of a text.
    """

    text: str
    kind: str = "prompt"
    question: bool = False


def read_prompts(
    file: Path, kinds: Collection[str] = (), count: int | None = None
) -> tuple[Prompt, ...]:
    """Return the prompts of a file, in its order.

    Args:
        kinds: the kinds of work to take; all if there are none.
        count: how many prompts of each kind are taken, the first ones.

    Raises:
        UnreadableData: for a file that cannot be read, a line that holds no prompt, and a kind that
            the file does not have.
    """
    taken: dict[str, int] = dict.fromkeys(kinds, 0)
    seen: set[str] = set()
    prompts: list[Prompt] = []
    for prompt in _prompts(file):
        seen.add(prompt.kind)
        wanted = not kinds or prompt.kind in kinds
        before = taken.get(prompt.kind, 0)
        if wanted and (count is None or before < count):
            taken[prompt.kind] = before + 1
            prompts.append(prompt)
    if not seen:
        raise UnreadableData(file, "is empty")
    if missing := sorted(set(kinds) - seen):
        there = ", ".join(sorted(seen))
        raise UnreadableData(file, f"has no prompts of the kind {missing[0]}; it has {there}")
    return tuple(prompts)


def kind_of_work(category: str) -> str:
    """Return the kind of work that Spec-Bench counts a category as."""
    return "conversation" if category in _MT_BENCH else category


def _prompts(file: Path) -> Iterator[Prompt]:
    for number, entry in read_json_lines(file):
        prompt = _prompt(entry)
        if prompt is None:
            why = "has no text 'prompt' or 'question' and no list 'turns'"
            raise UnreadableData(file, why, number)
        yield prompt


def _prompt(entry: Mapping[str, Any]) -> Prompt | None:
    """Return the prompt of a line; None if there is none."""
    category = entry.get("category")
    kind = category if isinstance(category, str) else None
    turns = entry.get("turns")
    if isinstance(turns, list) and turns and isinstance(turns[0], str):
        return Prompt(_clean(turns[0]), kind_of_work(kind or "turns"), question=True)
    if isinstance(question := entry.get("question"), str):
        return Prompt(_clean(question), kind or "question", question=True)
    if not isinstance(text := entry.get("prompt"), str):
        return None
    program = "entry_point" in entry
    return Prompt(_clean(text), kind or ("program" if program else "prompt"), question=not program)


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON can write and a tokenizer cannot read."""
    return text.encode("utf-8", errors="replace").decode()
