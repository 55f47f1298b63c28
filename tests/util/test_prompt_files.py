"""Prompts of published files, by what their lines hold."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from swarm.util.json_lines import UnreadableData
from swarm.util.prompt_files import Prompt, read_prompts


def lines(folder, *entries):
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


@pytest.mark.parametrize(
    ("entry", "prompt"),
    [
        (
            {"question_id": 1, "category": "rag", "turns": ["Who?", "Why?"]},
            Prompt("Who?", "rag", question=True),
        ),
        (
            {"category": "coding", "turns": ["Sort."]},
            Prompt("Sort.", "conversation", question=True),
        ),
        ({"question": "How many?", "answer": "7"}, Prompt("How many?", "question", question=True)),
        ({"prompt": "def f():", "entry_point": "f"}, Prompt("def f():", "program")),
        ({"key": 1, "prompt": "Write."}, Prompt("Write.", "prompt", question=True)),
        ({"prompt": "a\ud800b"}, Prompt("a?b", "prompt", question=True)),
    ],
)
def test_what_a_line_holds_says_what_it_is(entry, prompt, tmp_path):
    assert read_prompts(lines(tmp_path, entry)) == (prompt,)


def test_so_many_of_each_kind_that_is_asked_for(tmp_path):
    file = lines(
        tmp_path,
        *({"category": kind, "turns": [f"{kind} {n}"]} for n in range(3) for kind in ("a", "b")),
    )
    assert [each.text for each in read_prompts(file, count=2)] == ["a 0", "b 0", "a 1", "b 1"]
    assert [each.text for each in read_prompts(file, ["b"], 2)] == ["b 0", "b 1"]
    assert len(read_prompts(file)) == 6


@pytest.mark.parametrize(
    ("entries", "kinds", "words"),
    [
        ([{"text": "x"}], (), "line 1, has no text 'prompt'"),
        ([{"prompt": 5}], (), "line 1"),
        ([{"turns": []}], (), "line 1"),
        ([{"turns": [5]}], (), "line 1"),
        ([], (), "is empty"),
        ([{"category": "rag", "turns": ["x"]}], ["prose"], "of the kind prose; it has rag"),
    ],
)
def test_a_file_without_prompts_says_what_it_lacks(entries, kinds, words, tmp_path):
    with pytest.raises(UnreadableData) as caught:
        read_prompts(lines(tmp_path, *entries), kinds)
    assert words in str(caught.value)


@pytest.mark.skipif(
    "SWARM_TEST_DATA" not in os.environ,
    reason="needs the folder of published files, SWARM_TEST_DATA",
)
def test_the_published_files():
    folder = Path(os.environ["SWARM_TEST_DATA"])
    spec_bench = Counter(each.kind for each in read_prompts(folder / "spec_bench.jsonl"))
    assert sorted(spec_bench.values()) == [80] * 6
    assert len(read_prompts(folder / "gsm8k_test.jsonl")) == 1319
    assert len(read_prompts(folder / "HumanEval.jsonl.gz")) == 164
