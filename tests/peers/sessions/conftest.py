"""Spans of the tiny model."""

import pytest

from helpers.lone_peer import MIDDLE
from helpers.models import LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span


@pytest.fixture(scope="module")
def spans(tiny: Checkpoint) -> tuple[Span, Span, Span]:
    """The lower half, the upper half, and the whole."""
    return Span.load(tiny, 0, MIDDLE), Span.load(tiny, MIDDLE, LAYERS), Span.load(tiny, 0, LAYERS)
