"""Questions, and which answers are right."""

import gzip
import json
import os
from itertools import islice
from pathlib import Path

import pytest

from swarm.demo.problems import problems
from swarm.eval.sandbox import run_python
from swarm.eval.tasks import TaskError, final_number, load_task

ADD = {
    "task_id": "x/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
}


NO_COMMA = "punctuation:no_comma"


def instructed(*kinds, arguments=ADD, prompt="Write a poem."):
    """Return a line of IFEval's; by default the first instruction has no arguments."""
    arguments = {} if arguments is ADD else arguments
    return json.dumps({"prompt": prompt, "instruction_id_list": list(kinds), "kwargs": [arguments]})


def lines(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_arithmetic_is_our_own_held_out_problems():
    task = load_task("arithmetic", 20)
    for item, problem in zip(task.items, problems(1000, held_out=True), strict=False):
        assert item.prompt == problem.prompt
        assert item.check(f" {problem.solution}")
        assert not item.check(f" {problem.solution}0")
    assert len(task.items) == 20


def test_gsm8k_shows_worked_examples_first(tmp_path):
    data = lines(
        tmp_path / "test.jsonl", {"question": "How many?", "answer": "So 1,234.\n#### 1,234"}
    )
    train = lines(
        tmp_path / "train.jsonl", *({"question": f"Q{i}", "answer": f"#### {i}"} for i in range(9))
    )
    (item,) = load_task("gsm8k", 5, data=data, train=train).items
    assert item.prompt.startswith("Question: Q0\nAnswer: #### 0\n\nQuestion: Q1")
    assert item.prompt.endswith("Question: How many?\nAnswer:")
    assert item.check(" it is #### 1234")
    assert item.check(" first 7, so the answer is $1,234.")
    assert not item.check(" 1234, no, 1235")
    assert not item.check(" I do not know")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### -5", -5),
        ("a 3 b 4.50", 4.5),
        ("$1,000,000", 1e6),
        ("#### 12 apples of 30", 12),
        ("none", None),
    ],
)
def test_the_final_number(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize("packed", [False, True])
def test_humaneval_runs_the_completion(packed, tmp_path):
    data = tmp_path / ("data.jsonl.gz" if packed else "data.jsonl")
    content = (json.dumps(ADD) + "\n").encode()
    data.write_bytes(gzip.compress(content) if packed else content)
    (item,) = load_task("humaneval", 1, data=data, run_generated_code=True).items
    assert item.check("    return a + b\n")
    assert not item.check("    return a - b\n")
    assert not item.check("    import os; os._exit(0)\n")


def test_ifeval_asks_what_can_be_checked(tmp_path):
    data = tmp_path / "ifeval.jsonl"
    both = {
        "prompt": "In capitals, without commas.",
        "instruction_id_list": [NO_COMMA, "change_case:english_capital"],
        "kwargs": [{}, {"language": None}],
    }
    german = instructed("language:response_language", arguments={"language": "de"})
    data.write_text(f"{instructed(NO_COMMA)}\n{german}\n{json.dumps(both)}\n")
    task = load_task("ifeval", 5, data=data)
    first, second = task.items
    assert task.chat
    assert first.check("Roses are red")
    assert not first.check("Roses, red")
    assert not first.check(" \n")  # an empty answer follows nothing
    assert second.check("ROSES")
    assert not second.check("ROSES, RED")
    assert not second.check("Roses")
    assert "1 prompts of 3 are left out" in task.note
    assert "language:response_language needs a model" in task.note
    assert load_task("ifeval", 1, data=data).items[0].prompt == first.prompt


def test_spec_bench_takes_turns_between_kinds_of_work(tmp_path):
    data = lines(
        tmp_path / "spec_bench.jsonl",
        *({"category": kind, "turns": [f"{kind}?", "and then?"]} for kind in ("writing", "stem")),
        *({"category": "rag", "turns": [f"rag {i}?"]} for i in range(3)),
    )
    task = load_task("spec_bench", 4, data=data)
    assert [(item.kind, item.prompt) for item in task.items] == [
        ("conversation", "writing?"),
        ("rag", "rag 0?"),
        ("conversation", "stem?"),
        ("rag", "rag 1?"),
    ]
    assert task.chat
    assert {item.check for item in task.items} == {None}


@pytest.mark.parametrize(
    ("name", "content", "how", "words"),
    [
        ("poetry", None, {}, "the tasks are arithmetic, gsm8k, humaneval"),
        ("gsm8k", None, {}, "--data"),
        ("humaneval", "{}", {}, "--run-generated-code"),
        ("gsm8k", "", None, "cannot be read"),
        (
            "gsm8k",
            '{"question": "x", "answer": "1"}\nnot json',
            {},
            "line 2, is no JSON object",
        ),
        ("gsm8k", '{"question": 5, "answer": "1"}', {}, "line 1"),
        ("humaneval", '{"prompt": "x"}', {"run_generated_code": True}, "entry_point (a text)"),
        ("ifeval", None, {}, "--data"),
        ("ifeval", '{"prompt": "x", "kwargs": [{}]}', {}, "instruction_id_list (a list)"),
        ("ifeval", instructed("poetry:rhymes"), {}, "no check of the instruction 'poetry:rhymes'"),
        ("ifeval", instructed(["punctuation:no_comma"]), {}, "no check of the instruction ["),
        ("ifeval", instructed(NO_COMMA, arguments={"commas": 3}), {}, "takes no arguments"),
        ("ifeval", instructed(NO_COMMA, arguments=None), {}, "no arguments by name"),
        ("ifeval", instructed(NO_COMMA, NO_COMMA), {}, "no arguments by name"),
        ("ifeval", instructed("keywords:existence", arguments={"keywords": "x"}), {}, "keywords"),
        ("spec_bench", '{"category": "qa", "turns": [7]}', {}, "no text in its turns"),
        ("spec_bench", '{"category": "qa", "turns": "x"}', {}, "turns (a list)"),
    ],
)
def test_a_task_that_cannot_be_set_says_what_is_needed(name, content, how, words, tmp_path):
    data = None if content is None else tmp_path / "data.jsonl"
    if content:
        data.write_text(content)
    with pytest.raises(TaskError) as caught:
        load_task(name, 10, data=data, **(how or {}))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_one_sentence(tmp_path):
    data = tmp_path / "data.jsonl.gz"
    data.write_bytes(gzip.compress(b"x" * 1000)[:-20])
    with pytest.raises(TaskError, match="cannot be read"):
        load_task("gsm8k", 1, data=data)


@pytest.mark.skipif(
    "SWARM_TEST_DATA" not in os.environ,
    reason="needs the folder of published files, SWARM_TEST_DATA",
)
def test_the_published_solutions_pass():
    folder = Path(os.environ["SWARM_TEST_DATA"])
    assert all(
        item.prompt for item in load_task("gsm8k", 2000, data=folder / "gsm8k_test.jsonl").items
    )
    assert len(load_task("ifeval", 1000, data=folder / "ifeval.jsonl").items) == 446
    assert len(load_task("spec_bench", 1000, data=folder / "spec_bench.jsonl").items) == 480
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt") as file:
        for entry in map(json.loads, islice(file, 10)):
            program = (
                f"{entry['prompt']}{entry['canonical_solution']}\n"
                f"{entry['test']}\ncheck({entry['entry_point']})\n"
            )
            assert run_python(program).passed, entry["task_id"]
