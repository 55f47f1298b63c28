"""What a client holds of the models."""

from concurrent.futures import Executor
from dataclasses import replace

import pytest
import torch

from helpers.loopback import WORDS
from helpers.models import VOCAB
from swarm.client.cpu_threads import Cores, CpuThreads, Executors
from swarm.client.models import ClientModels
from swarm.model.compute import ComputeOptions
from swarm.outputs import Compute


def test_the_head_and_the_tokenizer_are_the_targets(target):
    loaded = ClientModels.load(target, None)
    assert loaded.draft is None
    assert loaded.tokenizer.get_vocab() == {word: i for i, word in enumerate(WORDS)}
    assert loaded.head.logits(torch.zeros(2, loaded.checkpoint.hidden_size)).shape == (2, VOCAB)


def test_the_draft_model_comes_with_them(target, draft):
    assert ClientModels.load(target, draft).draft.model.config.model_type == "qwen3"


def test_the_models_say_where_they_compute(target, draft):
    options = ComputeOptions(device="cpu", draft_dtype="int8")
    threads = torch.get_num_threads()
    assert ClientModels.load(target, draft, options=options).compute == Compute(
        device="cpu",
        draft_device="cpu",
        draft_dtype="int8",
        draft_vocab=VOCAB,
        draft_dtype_asked=True,
        judging_threads=threads,  # they are small
        drafting_threads=threads,
    )
    assert not ClientModels.load(target, draft).compute.draft_dtype_asked
    alone = ClientModels.load(target, None).compute
    assert (alone.draft_device, alone.draft_dtype) == (None, None)


def test_large_models_on_the_cpu_share_its_threads(target, draft, monkeypatch):
    monkeypatch.setattr("swarm.client.models.SMALL_WEIGHTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    compute = ClientModels.load(target, draft).compute
    assert (compute.judging_threads, compute.drafting_threads) == (4, 4)
    assert ClientModels.load(target, None).compute.judging_threads == 8


@pytest.mark.parametrize("tuned", [True, False])
def test_a_draft_model_is_watched_where_it_shares_the_cores(tuned, target, draft):
    models = replace(
        ClientModels.load(target, draft), threads=CpuThreads(1, 1, alone=2, tuned=tuned)
    )
    executor = Executor()
    shared = models.share_cores(Executors(executor, executor))
    assert isinstance(models.draft.branching.watch, Cores) == tuned
    assert (shared.drafting is not executor) == (shared.judging is not executor) == tuned
