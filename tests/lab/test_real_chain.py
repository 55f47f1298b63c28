"""Prompts of a kind come in their order, those that a head may have learned from left out."""

import gzip
import json
from pathlib import Path

from lab.copies import CHATS
from lab.real_chain import write_prompts
from swarm.util.prompt_files import Prompt, read_prompts

PROGRAM = {"prompt": "def one():", "canonical_solution": " return 1"}
TURNS = [{"category": kind, "turns": [f"{kind}?"]} for kind in ("rag", "summarization", *CHATS)]


def test_prompts_are_written_as_bench_reads_them(tmp_path: Path) -> None:
    problems = [{"question": f"How many are {number}?"} for number in range(5)]
    _lines(tmp_path / "gsm8k_test.jsonl", problems)
    _lines(tmp_path / "spec_bench.jsonl", TURNS)
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(PROGRAM))
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(tmp_path, ("gsm8k",), 2, 2, prompts)
    assert read_prompts(prompts) == tuple(
        Prompt(f"How many are {number}?", "gsm8k", question=True) for number in (2, 3)
    )
    write_prompts(tmp_path, (), 0, 1, prompts)
    assert {each.kind for each in read_prompts(prompts)} == {
        *("gsm8k", "humaneval", "chat", "summarization", "rag", "quote", "edit")
    }


def _lines(file: Path, entries: list) -> None:
    file.write_text("\n".join(map(json.dumps, entries)))
