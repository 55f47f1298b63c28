"""The head is the part of the model that the client holds.

(Every architecture's head is tested with its spans.)
"""

from pathlib import Path

import pytest
import torch

from helpers.models import ARCHITECTURES, COMMON, VOCAB
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head

HIDDEN = COMMON["hidden_size"]


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


# Plain, tied, soft-capped, scaled up and down, with a bias, with a norm that has no weights.
@pytest.mark.parametrize(
    "name", ["llama", "llama_tied", "gemma2", "granite", "cohere", "phi", "olmo", "bloom"]
)
def test_logits_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))
    entered: list[torch.Tensor] = []
    norm = [module for module in model.base_model.children() if "Norm" in type(module).__name__][-1]
    norm.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    with torch.inference_mode():
        expected = model(input_ids=torch.arange(3, 10)[None]).logits[0]
    logits = head.logits(entered[0][0])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(head.normed(entered[0][0]), norm(entered[0])[0])


def test_it_takes_16_bit_states_and_gives_float32(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")))
    hidden = torch.randn(3, HIDDEN).bfloat16()
    logits = head.logits(hidden)
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((3, VOCAB), torch.float32, False)
    torch.testing.assert_close(logits, head.logits(hidden.float()))


def test_rows_do_not_depend_on_each_other(tmp_path: Path) -> None:
    ARCHITECTURES["gemma3_text"].save(tmp_path / "model")
    head = Head.load(Checkpoint.open(str(tmp_path / "model")), dtype=torch.float32)
    hidden = torch.randn(9, HIDDEN)
    torch.testing.assert_close(head.logits(hidden)[4:5], head.logits(hidden[4:5]))
