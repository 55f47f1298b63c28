"""The tasks of an evaluation: questions, and checks of their answers."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from swarm.demo.problems import answer_of, problems
from swarm.errors import UsageError
from swarm.eval.sandbox import run_python
from swarm.util.json_lines import UnreadableData, read_json_lines

SHOTS = 4  # worked examples before a GSM8K question
TASKS = ("arithmetic", "gsm8k", "humaneval")
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
    """One question; ``check`` returns whether a continuation of the prompt is right."""

    prompt: str
    check: Callable[[str], bool]


@dataclass(frozen=True)
class Task:
    """Questions of one kind, and where their answers end."""

    name: str
    items: tuple[Item, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()


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
        for shot in islice(_lines("gsm8k", train, "question", "answer"), SHOTS):
            before += f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n"
    items = []
    for line in islice(_lines("gsm8k", data, "question", "answer"), count):
        check = partial(_ends_in, final_number(line["answer"]))
        items.append(Item(f"{before}Question: {line['question']}\nAnswer:", check))
    return Task("gsm8k", tuple(items), max_new_tokens=400, stop=("\nQuestion:",))


def humaneval(count: int, data: Path) -> Task:
    """Return functions to complete (Chen et al. 2021).

    JSON lines with ``prompt``, ``test`` and ``entry_point``.
    """
    lines = islice(_lines("humaneval", data, "prompt", "test", "entry_point"), count)
    items = tuple(Item(line["prompt"], partial(_passes, line)) for line in lines)
    stop = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")
    return Task("humaneval", items, max_new_tokens=512, stop=stop)


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


def _lines(task: str, file: Path, *fields: str) -> Iterator[dict[str, str]]:
    """Yield the objects of a JSON-lines file, each with these fields as text."""
    try:
        for number, entry in read_json_lines(file):
            if not all(isinstance(entry.get(field), str) for field in fields):
                why = f"is no JSON object with the texts {', '.join(fields)}"
                raise UnreadableData(file, why, number)
            yield entry
    except UnreadableData as error:
        raise TaskError(task, str(error)) from None
