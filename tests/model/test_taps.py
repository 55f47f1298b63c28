"""A span tells outputs of its layers: those of the whole model, for the works that want them."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.local_chain import Session, tokens
from helpers.models import ARCHITECTURES, LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.taps import Taps
from swarm.model.work import Work
from swarm.wire.taps import TapTerms


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


def outputs_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all layers but the last one, ``[n, layers - 1, hidden]``."""
    with torch.inference_mode():
        told = model(input_ids=ids[None], use_cache=False, output_hidden_states=True).hidden_states
    return torch.stack([layer[0] for layer in told[1:-1]], dim=1)


def told(taps: Taps | None) -> torch.Tensor:
    assert taps is not None
    return torch.cat([part.unpack() for part in taps.outputs])


def exactly(*layers: int) -> TapTerms:
    return TapTerms(layers=layers, float8=False)


# some that return tuples, scale embeddings, do not pack, or have experts
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3_moe", "gpt_oss", "phi3_longrope"])
def test_taps_are_the_outputs_of_the_whole_model(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, LAYERS)
    text, other = tokens(9, seed=1), tokens(4, seed=2)
    works = [
        Work(session.caches[0], ids, session.place(len(ids)), Taps(exactly(*layers), tail))
        for ids, layers, tail in ((text, (0, 2), 3), (other, (1,), 4))
        for session in [Session([span])]
    ]
    plain = Session([span])
    span.forward([works[0], Work(plain.caches[0], other, plain.place(len(other))), works[1]])
    ours, theirs = (told(work.taps) for work in works)
    assert ours.shape == (3, 2, span.hidden_size)
    torch.testing.assert_close(ours, outputs_of(model, text)[-3:, [0, 2]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(theirs, outputs_of(model, other)[:, [1]], rtol=1e-3, atol=1e-4)


def test_each_branch_has_its_own(tmp_path: Path) -> None:
    model = ARCHITECTURES["llama"].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, LAYERS)
    session, text = Session([span]), tokens(7, seed=1)
    placed = session.place(7, parents=(1, 1, 1, 1, 1, 2, 1))  # the last two leave the fifth out
    taps = Taps(exactly(1), 2)
    span.forward([Work(session.caches[0], text, placed, taps)])
    path = torch.cat([text[:4], text[5:]])
    expected = outputs_of(model, path)[-2:, [1]]
    torch.testing.assert_close(told(taps), expected, rtol=1e-3, atol=1e-4)


def test_a_part_of_a_span_tells_its_own_layers_and_its_last_ones_output(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, LAYERS)
    hidden = torch.randn(3, span.hidden_size)
    taps = Taps(exactly(1, 2), 3)
    work = Work.behind(span.new_cache(1, 3), hidden)
    work = Work(work.cache, hidden, work.placement, taps)
    (output,) = span.forward([work], 1, 3)
    assert told(taps)[:, 1].equal(output)
    # the next forward of the same layers tells nothing to works that want nothing
    again = Taps(exactly(1), 0)
    plain = Work.behind(work.cache, hidden)
    span.forward([Work(plain.cache, hidden, plain.placement, again)], 1, 3)
    assert not again.outputs
