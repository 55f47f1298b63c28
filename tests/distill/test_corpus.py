"""Texts on disk: whole parts, read again, and refused where they are another target's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm.distill.corpus import Corpus, sixteen_bits
from swarm.distill.texts import TargetText
from swarm.errors import ConfigError
from swarm.util.files import UNFINISHED

HIDDEN = 4
FINGERPRINT = "0123456789abcdef"


def text(length: int, prompt: int) -> TargetText:
    return TargetText(torch.arange(length), torch.randn(length, HIDDEN).half(), prompt)


def test_texts_are_read_as_they_were_written(tmp_path: Path) -> None:
    first = [text(5, 2), text(3, 1)]
    second = [text(7, 3)]
    corpus = Corpus(tmp_path, FINGERPRINT, HIDDEN)
    corpus.append(first)
    corpus.append(second)
    (tmp_path / f"part-000002{UNFINISHED}").write_bytes(b"half")  # of a run that was killed
    again = Corpus(tmp_path, FINGERPRINT, HIDDEN)
    assert (again.texts, again.written) == (corpus.texts, corpus.written) == (3, 9)
    for one, other in zip(again, [*first, *second], strict=True):
        assert one.prompt == other.prompt
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.states, other.states)
    assert len(list(tmp_path.glob("part-*"))) == 2


@pytest.mark.parametrize(("fingerprint", "hidden"), [("another", HIDDEN), (FINGERPRINT, 8)])
def test_texts_of_another_target_are_refused(tmp_path: Path, fingerprint: str, hidden: int) -> None:
    Corpus(tmp_path, FINGERPRINT, HIDDEN).append([text(5, 2)])
    with pytest.raises(ConfigError, match="texts of another target; give another folder"):
        Corpus(tmp_path, fingerprint, hidden)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    Corpus(tmp_path, FINGERPRINT, HIDDEN).append([text(5, 2)])
    part = tmp_path / "part-000000.safetensors"
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"part-000000.safetensors cannot be read .*delete it"):
        Corpus(tmp_path, FINGERPRINT, HIDDEN)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("prompts", [2], "lengths that do not fit"),
        ("prompts", [2, 1, 1], "lengths that do not fit"),
        ("ends", [5, 7], "lengths that do not fit"),
        ("tokens", [1, 2], "lengths that do not fit"),
        ("prompts", [2, 4], "ends before its prompt"),
        ("prompts", [-1, 1], "ends before its prompt"),
        ("ends", [8, 8], "ends before its prompt"),
    ],
)
def test_a_part_whose_tensors_do_not_fit_each_other_is_named(
    name: str, values: list[int], words: str, tmp_path: Path
) -> None:
    Corpus(tmp_path, FINGERPRINT, HIDDEN).append([text(5, 2), text(3, 1)])
    part = tmp_path / "part-000000.safetensors"
    tensors = load_file(part)
    tensors[name] = torch.tensor(values, dtype=tensors[name].dtype)
    save_file(tensors, part, {"fingerprint": FINGERPRINT})
    with pytest.raises(ConfigError, match=f"part-000000.safetensors cannot be read .*{words}"):
        Corpus(tmp_path, FINGERPRINT, HIDDEN)


def test_states_too_large_for_float16_keep_their_size() -> None:
    assert sixteen_bits(torch.tensor([1.0, -6e4])).dtype == torch.float16
    assert sixteen_bits(torch.tensor([1.0, -7e4])).dtype == torch.bfloat16
