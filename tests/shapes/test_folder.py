"""Written models load as published ones do, and their heads choose the script."""

import os

import torch

from helpers.shapes import TINY
from swarm.decoding.drafting.drafter import Source
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import AUTOMATIC
from swarm.model.drafts.choice import load_any_draft
from swarm.model.drafts.draft import DraftModel
from swarm.model.head import Head
from swarm.model.heads.loading import FeatureDraft
from swarm.model.rehearsal import rehearsed
from swarm.shapes.folder import file_bytes, write_draft, write_draft_head, write_target


def test_a_target_has_the_sizes_of_its_shape_and_a_head_that_tells_its_rows_apart(tmp_path):
    script = write_target(TINY, tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert (checkpoint.num_layers, checkpoint.hidden_size, checkpoint.vocab_size) == (4, 64, 512)
    rows = checkpoint.tensor(f"{rehearsed(checkpoint).tied}.weight")
    assert rows.shape == (512, 64)
    logits = Head.load(checkpoint).logits(rows[list(script.tokens[:100])])
    assert logits.argmax(dim=-1).tolist() == list(script.tokens[:100])
    assert checkpoint.tokenizer()("w5 w511").input_ids == [5, 511]


def test_all_rows_of_a_large_weight_differ(tmp_path, monkeypatch):
    monkeypatch.setattr("swarm.shapes.folder.MOST_RANDOM", 100 * TINY.hidden_size)
    write_target(TINY, tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    rows = checkpoint.tensor("model.embed_tokens.weight").float()
    assert len(rows.unique(dim=0)) == TINY.vocab_size
    assert Head.load(checkpoint).logits(rows).argmax(dim=-1).equal(torch.arange(TINY.vocab_size))


def test_empty_layers_take_no_room_on_disk(tmp_path):
    write_target(TINY, tmp_path)
    status = os.stat(tmp_path / "model.safetensors")
    assert status.st_blocks * 512 <= max(status.st_size, 1 << 17)
    content = TINY.vocab_size * TINY.hidden_size * 2
    assert file_bytes(TINY)[0] == content <= status.st_size


def test_a_draft_is_whole_has_the_targets_vocabulary_and_branches(tmp_path):
    write_target(TINY, tmp_path / "target")
    write_draft(TINY, tmp_path / "draft")
    target = Checkpoint.open(str(tmp_path / "target"))
    draft = DraftModel.load(str(tmp_path / "draft"), target, target.tokenizer())
    assert draft.branching is not None
    config = draft.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 2, 512)
    written = (tmp_path / "draft" / "model.safetensors").stat().st_size
    assert abs(written - file_bytes(TINY)[1]) < 0.1 * written
    logits = draft.model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert logits.isfinite().all()


def test_a_draft_head_is_whole_and_has_its_rows_of_the_target(tmp_path):
    write_target(TINY, tmp_path / "target")
    write_draft_head(TINY, tmp_path / "draft")
    target = Checkpoint.open(str(tmp_path / "target"))
    draft = load_any_draft(str(tmp_path / "draft"), target, target.tokenizer(), AUTOMATIC)
    assert isinstance(draft, FeatureDraft)
    assert draft.source is Source.FEATURES
    assert (draft.vocab, draft.taps) == (TINY.draft_head.rows, ())
    norm_before_the_mlp = TINY.hidden_size
    assert draft.weights == TINY.draft_head.numel(TINY) + norm_before_the_mlp
    written = (tmp_path / "draft" / "model.safetensors").stat().st_size
    rows = TINY.draft_head.rows * TINY.hidden_size * 2  # which lie in the target
    assert abs(written + rows - file_bytes(TINY, "head")[1]) < 0.1 * written
