"""What is asked, and which answers are right."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from swarm.demo.problems import answer_of, problems
from swarm.errors import UsageError
from swarm.eval.sandbox import run_python

MAX_DATA_BYTES = 64 << 20  # unpacked; the published files are below 10 MB
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
    """One question; ``check`` says whether a continuation of the prompt is right."""

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
    """The first ``count`` questions of a task.

    Args:
        data: file of questions; `arithmetic` makes its own.
        train: file of worked examples to show before each question of `gsm8k`.
        run_generated_code: allowed to run what the model writes, as `humaneval` must.

    Raises:
        TaskError: for an unknown name, a file that is missing or not what it should be, or code
            that may not run.
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
        raise TaskError(
            name, "it runs the code that the model writes; allow it with --run-generated-code"
        )
    return humaneval(count, data)


def arithmetic(count: int, seed: int = 1000) -> Task:
    """Held-out problems of our own generator; training never sees one of them, whatever the
    seed."""
    asked = islice(problems(seed, held_out=True), count)
    items = tuple(Item(each.prompt, partial(_says, each.answer)) for each in asked)
    return Task("arithmetic", items, max_new_tokens=200)


def gsm8k(count: int, data: Path, train: Path | None = None) -> Task:
    """Grade-school problems (Cobbe et al. 2021): JSON lines with ``question`` and ``answer``."""
    shown = (
        [] if train is None else list(islice(_lines("gsm8k", train, "question", "answer"), SHOTS))
    )
    before = "".join(
        f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n" for shot in shown
    )
    items = tuple(
        Item(
            f"{before}Question: {line['question']}\nAnswer:",
            partial(_ends_in, final_number(line["answer"])),
        )
        for line in islice(_lines("gsm8k", data, "question", "answer"), count)
    )
    return Task("gsm8k", items, max_new_tokens=400, stop=("\nQuestion:",))


def humaneval(count: int, data: Path) -> Task:
    """Functions to complete (Chen et al. 2021): JSON lines with ``prompt``, ``test`` and
    ``entry_point``."""
    items = tuple(
        Item(line["prompt"], partial(_passes, line))
        for line in islice(_lines("humaneval", data, "prompt", "test", "entry_point"), count)
    )
    return Task(
        "humaneval",
        items,
        max_new_tokens=512,
        stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint("),
    )


def final_number(text: str) -> float | None:
    """The number behind the last ``####``, else the last number of the text, or None."""
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
    return run_python(
        f"{line['prompt']}{text}\n{line['test']}\ncheck({line['entry_point']})\n"
    ).passed


def _lines(task: str, file: Path, *fields: str) -> Iterator[dict[str, str]]:
    """The objects of a JSON-lines file, each with these fields as text."""
    for number, line in enumerate(_read(task, file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(field), str) for field in fields
        ):
            raise TaskError(
                task, f"{file}, line {number}, is no JSON object with the texts {', '.join(fields)}"
            )
        yield entry


def _read(task: str, file: Path) -> str:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(MAX_DATA_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(task, f"{file} cannot be read ({error})") from None
    if len(content) > MAX_DATA_BYTES:
        raise TaskError(task, f"{file} is larger than {MAX_DATA_BYTES >> 20} MB")
    return content.decode("utf-8", errors="replace")
