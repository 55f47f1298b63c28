"""The tasks of an evaluation: questions, and checks of their answers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from swarm.demo.problems import answer_of, problems
from swarm.errors import UsageError
from swarm.eval.instructions import UNCHECKED, Check, UnknownInstruction, check_of
from swarm.eval.sandbox import run_python
from swarm.util.json_lines import UnreadableData, read_json_lines
from swarm.util.prompt_files import kind_of_work

SHOTS = 4  # worked examples before a GSM8K question
TASKS = ("arithmetic", "gsm8k", "humaneval", "ifeval", "spec_bench")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


@dataclass(eq=False)
class TaskError(UsageError):
    """A task that cannot be set; `problem` says what is wrong and what would be right."""

    task: str
    problem: str

    def __str__(self) -> str:
        return f"the task {self.task} cannot be set: {self.problem}"


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        check: returns whether an answer is right; None where no program can tell.
        kind: of work, where a task has several.
    """

    prompt: str
    check: Check | None
    kind: str = ""


@dataclass(frozen=True)
class Task:
    """Questions of one kind, and where their answers end.

    Attributes:
        chat: whether a prompt is a user's message; else it is a text to be continued.
        note: what the reader of a report has to know; empty if there is nothing.
    """

    name: str
    items: tuple[Item, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    chat: bool = False
    note: str = ""


def load_task(
    name: str,
    count: int,
    *,
    data: Path | None = None,
    train: Path | None = None,
    run_generated_code: bool = False,
) -> Task:
    """Return the first ``count`` questions of a task.

    Args:
        data: file of questions; `arithmetic` makes its own.
        train: file of worked examples to show before each question of `gsm8k`.
        run_generated_code: whether the model's code may run, as `humaneval` must.

    Raises:
        TaskError: for an unknown name, a missing or malformed file, or code that may not run.
    """
    if name == "arithmetic":
        return arithmetic(count)
    if name not in TASKS:
        raise TaskError(repr(name), f"the tasks are {', '.join(TASKS)}")
    if data is None:
        raise TaskError(name, "name the file of questions with --data")
    if name == "gsm8k":
        return gsm8k(count, data, train)
    if name == "ifeval":
        return ifeval(count, data)
    if name == "spec_bench":
        return spec_bench(count, data)
    if not run_generated_code:
        why = "it runs the code that the model writes; allow it with --run-generated-code"
        raise TaskError(name, why)
    return humaneval(count, data)


def arithmetic(count: int, seed: int = 1000) -> Task:
    """Return held-out problems of our own generator; training never sees them, with any seed."""
    asked = islice(problems(seed, held_out=True), count)
    items = tuple(Item(each.prompt, partial(_says, each.answer)) for each in asked)
    return Task("arithmetic", items, max_new_tokens=200)


def gsm8k(count: int, data: Path, train: Path | None = None) -> Task:
    """Return grade-school problems (Cobbe et al. 2021): JSON lines, ``question`` and ``answer``."""
    before = ""
    if train is not None:
        for shot in islice(_lines("gsm8k", train, question=str, answer=str), SHOTS):
            before += f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n"
    items = []
    for line in islice(_lines("gsm8k", data, question=str, answer=str), count):
        check = partial(_ends_in, final_number(line["answer"]))
        items.append(Item(f"{before}Question: {line['question']}\nAnswer:", check))
    return Task("gsm8k", tuple(items), max_new_tokens=400, stop=("\nQuestion:",))


def humaneval(count: int, data: Path) -> Task:
    """Return functions to complete (Chen et al. 2021).

    JSON lines with ``prompt``, ``test`` and ``entry_point``.
    """
    lines = islice(_lines("humaneval", data, prompt=str, test=str, entry_point=str), count)
    items = tuple(Item(line["prompt"], partial(_passes, line)) for line in lines)
    stop = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")
    return Task("humaneval", items, max_new_tokens=512, stop=stop)


def ifeval(count: int, data: Path) -> Task:
    """Return prompts with instructions that a program can check (Zhou et al. 2023).

    An answer is right if it follows all of them, as in the strict accuracy of prompts. Prompts with
    an instruction that has no check here are left out, and the task's note says so.

    JSON lines with ``prompt``, ``instruction_id_list`` and ``kwargs``.
    """
    items = []
    left_out = 0
    for line in _lines("ifeval", data, prompt=str, instruction_id_list=list, kwargs=list):
        kinds = line["instruction_id_list"]
        if any(each in kinds for each in UNCHECKED):
            left_out += 1
            continue
        try:
            checks = [check_of(*each) for each in zip_longest(kinds, line["kwargs"])]
        except UnknownInstruction as error:
            raise TaskError("ifeval", f"{data}: {error}, in {line['prompt'][:60]!r}") from None
        items.append(Item(line["prompt"], partial(_follows, checks)))
    why = "; ".join(f"{kind} {reason}" for kind, reason in UNCHECKED.items())
    note = f"{left_out} prompts of {len(items) + left_out} are left out, which no check fits: {why}"
    return Task(
        "ifeval", tuple(items[:count]), max_new_tokens=1280, chat=True, note=note * bool(left_out)
    )


def spec_bench(count: int, data: Path) -> Task:
    """Return prompts of six kinds of work, in turns (Xia et al. 2024); no program checks answers.

    Of a conversation only the first question is asked. JSON lines with ``category`` and ``turns``.
    """
    kinds: dict[str, list[Item]] = {}
    for line in _lines("spec_bench", data, category=str, turns=list):
        question = next(iter(line["turns"]), None)
        if not isinstance(question, str):
            raise TaskError("spec_bench", f"{data}: an entry has no text in its turns")
        kind = kind_of_work(line["category"])
        kinds.setdefault(kind, []).append(Item(question, None, kind))
    in_turns = filter(None, chain.from_iterable(zip_longest(*kinds.values())))
    return Task("spec_bench", tuple(islice(in_turns, count)), max_new_tokens=1024, chat=True)


def final_number(text: str) -> float | None:
    """Return the number behind the last ``####``, else the last number of the text, or None."""
    _, marker, tail = text.rpartition("####")
    found = _NUMBER.findall(tail)
    if not found:
        return None
    return float((found[0] if marker else found[-1]).replace(",", "").replace("$", ""))


def _says(answer: int, text: str) -> bool:
    return answer_of(text) == answer


def _ends_in(answer: float | None, text: str) -> bool:
    return answer is not None and final_number(text) == answer


def _passes(line: dict[str, str], text: str) -> bool:
    source = f"{line['prompt']}{text}\n{line['test']}\ncheck({line['entry_point']})\n"
    return run_python(source).passed


def _follows(checks: Sequence[Check], text: str) -> bool:
    return bool(text.strip()) and all(check(text) for check in checks)


def _lines(task: str, file: Path, **fields: type) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, each with these fields, which are texts or lists."""
    try:
        for number, entry in read_json_lines(file):
            if not all(isinstance(entry.get(field), kind) for field, kind in fields.items()):
                words: dict[type, str] = {str: "a text", list: "a list"}
                named = ", ".join(f"{field} ({words[kind]})" for field, kind in fields.items())
                raise UnreadableData(file, f"is no JSON object with {named}", number)
            yield entry
    except UnreadableData as error:
        raise TaskError(task, str(error)) from None
