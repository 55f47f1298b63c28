"""What a client has learned of a draft's errors comes back at the next start."""

import json

import pytest
import torch

from swarm.client.learned import MAX_FILE_BYTES, LearnedBiases
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.drafter import Drafted

SIZE = 20


def learned() -> Correction:
    correction = Correction(SIZE)
    for _ in range(9):
        correction.learn(7, Drafted(3, torch.zeros(SIZE), 0.6, ((4, 0.3),)), 4)
    return correction


def biases(correction: Correction, previous: int = 8) -> torch.Tensor:
    return correction.apply(torch.zeros(1, SIZE), [previous])[0]


def read(folder, fingerprint="a", draft="draft", size=SIZE) -> Correction:
    correction = Correction(size)
    LearnedBiases(folder, fingerprint, draft).read(correction)
    return correction


def test_biases_of_tokens_come_back_and_those_of_pairs_are_not_written(tmp_path):
    before = learned()
    LearnedBiases(tmp_path / "new", "a", "draft").write(before)
    after = read(tmp_path / "new")
    assert torch.allclose(biases(after), biases(before))
    assert biases(after).any()
    assert torch.equal(biases(after, previous=7), biases(after, previous=8))
    assert not torch.equal(biases(before, previous=7), biases(before, previous=8))
    after.learn(7, Drafted(3, torch.zeros(SIZE), 0.6), 4)
    before.learn(7, Drafted(3, torch.zeros(SIZE), 0.6), 4)
    assert torch.allclose(biases(after), biases(before)), "steps go on as small as they were"


def test_each_target_and_each_draft_has_a_file(tmp_path):
    LearnedBiases(tmp_path, "a", "draft").write(learned())
    assert not biases(read(tmp_path, fingerprint="b")).any()
    assert not biases(read(tmp_path, draft="other")).any()


def test_nothing_is_written_without_a_folder_or_before_anything_is_learned(tmp_path):
    LearnedBiases(None, "a", "draft").write(learned())
    LearnedBiases(tmp_path / "new", "a", "draft").write(Correction(SIZE))
    assert not (tmp_path / "new").exists()
    assert not biases(read(None)).any()


def test_a_file_of_a_larger_vocabulary_is_read_as_far_as_it_fits(tmp_path):
    LearnedBiases(tmp_path, "a", "draft").write(learned())
    small = read(tmp_path, size=4)
    assert small.apply(torch.zeros(1, 4), [0])[0, 3] < 0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        json.dumps({"biases": [[3, 1e9, 1]]}),
        json.dumps({"biases": [[-1, 1, 1]]}),
        json.dumps({"biases": [[3, 1, 0]]}),
        '{"biases": [[3, NaN, 1]]}',
        json.dumps({"biases": [[3, 1, 1]] * 5000}),
        " " * (MAX_FILE_BYTES + 1),
    ],
)
def test_a_file_that_is_damaged_counts_as_empty(content, tmp_path):
    LearnedBiases(tmp_path, "a", "draft").write(learned())
    [file] = tmp_path.glob("learned-*.json")
    file.write_text(content)
    assert not biases(read(tmp_path)).any()


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    LearnedBiases(file, "a", "draft").write(learned())
    assert not biases(read(file)).any()
