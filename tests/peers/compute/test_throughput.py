"""What a peer measures before it announces itself."""

from collections.abc import Iterator

import pytest
import torch

from helpers.models import LAYERS
from peers.compute import throughput
from peers.compute.throughput import measure, tune_threads
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[(0, 2), (2, LAYERS)], ids=["with the embedding", "without"])
def span(request: pytest.FixtureRequest, tiny: Checkpoint) -> Span:
    return Span.load(tiny, *request.param, dtype=torch.float32, device=torch.device("cpu"))


def test_a_span_is_measured(span: Span) -> None:
    assert measure(span) > 0


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({1: 100.0, 2: 180.0, 4: 300.0, 8: 310.0}, 4),  # the last doubling is not worth it
        ({1: 100.0, 2: 105.0, 4: 104.0, 8: 90.0}, 1),
        ({1: 100.0, 2: 40.0, 4: 900.0}, 1),  # it went downhill: nobody waits for what comes after
    ],
)
def test_as_many_threads_as_pay(
    span: Span, speeds: dict[int, float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "measure", lambda _: speeds[torch.get_num_threads()])
    torch.set_num_threads(max(speeds))
    assert tune_threads(span) == speeds[best]
    assert torch.get_num_threads() == best
