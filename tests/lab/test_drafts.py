"""The section on draft models: passes take turns, and the report shows both tables."""

from pathlib import Path

import torch

from helpers.models import ARCHITECTURES
from lab.drafts import PASSES, Passes, draft_tables, turns
from swarm.decoding.drafting.tree import TreeReader
from swarm.model.branching import BranchingModel


def test_passes_read_leaves_behind_the_text_again_and_again(tmp_path: Path) -> None:
    passes = Passes(BranchingModel.of(ARCHITECTURES["llama"].save(tmp_path)), text_tokens=8)
    reader: TreeReader = passes.reader
    read = []
    passes.reader = Recording(reader, read)
    run = passes.of(3)
    run()
    run()
    assert [each.shape[0] for each in read] == [3, 3]
    assert torch.allclose(read[0], read[1], atol=1e-5)  # the same leaves, behind the same text


class Recording:
    """A reader whose logits are kept."""

    def __init__(self, reader: TreeReader, read: list[torch.Tensor]) -> None:
        self._reader = reader
        self._read = read

    def read(self, *arguments) -> torch.Tensor:
        self._read.append(self._reader.read(*arguments))
        return self._read[-1]


def test_works_take_turns_and_the_first_run_does_not_count() -> None:
    ran = []
    taken = turns({name: lambda name=name: ran.append(name) for name in ("a", "b")})
    assert ran == ["a", "b"] * (PASSES + 1)
    assert [len(times) for times in taken.values()] == [PASSES, PASSES]


def test_the_tables_show_ratios_and_threads() -> None:
    rows = [
        {"weights": "int8", "leaves": 8, "ms": 35.2, "speedup": 6.31},
        {
            "threads": "shared out",
            "drafting_threads": 1,
            "judging_threads": 1,
            "draft_ms": 51.0,
            "judge_ms": 12.4,
        },
    ]
    table = "\n".join(draft_tables(rows))
    assert "| int8 | 8 | 35 ms | 6.3x |" in table
    assert "| shared out (1 and 1) | 51 ms | 12 ms |" in table
