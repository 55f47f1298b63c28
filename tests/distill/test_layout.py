"""A head that is saved is loaded as any published one, and gives what it gave when it learned."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.feature_heads import save_target
from helpers.swarm_in_thread import ThreadedSwarm
from swarm.client.sync import BlockingClient
from swarm.distill.frozen import Frozen
from swarm.distill.layout import Origin, published, save_head
from swarm.distill.trainable_head import TrainableHead, shape_for
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.heads.loading import FeatureDraft, load_head

TOKENS = [2, 5, 6, 30, 77]


def random_head(target: Checkpoint) -> TrainableHead:
    torch.manual_seed(3)
    head = TrainableHead(shape_for(target), embedding_scale=0.3, feature_scale=1.7)
    for parameter in head.parameters():
        parameter.data.normal_(std=0.3)
    return head


@pytest.fixture
def saved(tmp_path: Path) -> tuple[TrainableHead, Frozen, FeatureDraft, Path]:
    """A random head for a random target: as it was, and as it is loaded."""
    target = Checkpoint.open(str(save_target(tmp_path / "target")))
    head = random_head(target)
    frozen = Frozen.load(target, torch.float32, "cpu").keeping(TOKENS)
    folder = tmp_path / "head"
    save_head(head, frozen, Origin("target", target.fingerprint, target.vocab_size), folder)
    loaded = load_head(str(folder), target, target.tokenizer(), ComputeOptions())
    assert loaded is not None
    return head, frozen, loaded, folder


@torch.no_grad()
def test_a_loaded_head_gives_what_it_gave_in_training(
    saved: tuple[TrainableHead, Frozen, FeatureDraft, Path],
) -> None:
    head, frozen, loaded, _ = saved
    tokens = torch.randint(97, (1, 7))
    states = torch.randn(1, 7, head.shape.hidden)
    features = frozen.features(states)
    expected, _ = head(frozen.embedded(tokens), features)
    states = loaded.parts.head(loaded.parts.embedding.rows(tokens[0].tolist())[None], features)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)
    logits = loaded.parts.head.logits(states)
    torch.testing.assert_close(logits, frozen.drafted(expected), atol=1e-3, rtol=1e-3)


def test_it_predicts_the_tokens_that_it_has_rows_for(
    saved: tuple[TrainableHead, Frozen, FeatureDraft, Path],
) -> None:
    _, _, loaded, folder = saved
    assert loaded.vocab == len(TOKENS)
    stored = load_file(folder / "model.safetensors")
    rows = torch.arange(len(TOKENS))
    assert (rows + stored["d2t"]).tolist() == TOKENS
    assert stored["t2d"].nonzero()[:, 0].tolist() == TOKENS
    assert torch.load(folder / "token_map.pt", weights_only=True) == TOKENS
    projected = loaded.vocabulary.project(torch.arange(1.0, 1.0 + len(TOKENS))[None])
    assert projected[0, TOKENS].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_names_are_those_that_other_engines_load(
    saved: tuple[TrainableHead, Frozen, FeatureDraft, Path],
) -> None:
    """vLLM's `llama_eagle.py` refuses an ``lm_head``; SGLang's `llama_eagle.py` has a bias."""
    head, _, _, folder = saved
    layer = {f"self_attn.{name}_proj.weight" for name in "qkvo"}
    layer |= {f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    layer |= {"post_attention_layernorm.weight"}
    assert set(published(head)) == {"fc.weight", "fc.bias", *(f"layers.0.{name}" for name in layer)}
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    assert config["draft_vocab_size"] == len(TOKENS)


@pytest.mark.timeout(300)
def test_a_saved_head_drafts_in_a_swarm_and_changes_no_text(
    threaded: ThreadedSwarm, tmp_path: Path
) -> None:
    target = Checkpoint.open(threaded.model)
    frozen = Frozen.load(target, torch.float32, "cpu").keeping(range(0, 768, 2))
    origin = Origin(target.name, target.fingerprint, target.vocab_size)
    save_head(random_head(target), frozen, origin, tmp_path)
    texts = []
    for draft in (None, str(tmp_path)):
        client = BlockingClient(threaded.model, draft=draft, network=threaded.network)
        with client:
            texts.append(client.generate("Problem: Tom has 3 coins.", max_new_tokens=12))
    plain, drafted = texts
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.drafted_tokens > 0
