"""On real text, choices by the bounds of an int8 copy are those of the whole float32 head.

``SWARM_TEST_POSITIONS`` sets how many positions are tried; docs/verification.md has the figures of
10,000. Run it with ``-s`` to see how many exact logits the choices took.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from swarm.decoding.certificate import Bounds, Choosing, certify
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.kernels.int8 import Plain

POSITIONS = int(os.environ.get("SWARM_TEST_POSITIONS", "200"))
CHUNK = 512
FRAME = 8
DOCS = Path(__file__).parents[2] / "docs"
# English, code and tables; a third of the vocabulary's ids occur before.
SHAPED = Shaping(1.1, ((13, 2.0), (28, -100.0), (198, 1.0)))
WAYS = {
    "greedy": (Sampling(), NO_SHAPING),
    "T = 0.7": (Sampling(0.7, seed=1), NO_SHAPING),
    "T = 1": (Sampling(1.0, seed=2), NO_SHAPING),
    "greedy, penalty and biases": (Sampling(), SHAPED),
    "T = 0.7, penalty and biases": (Sampling(0.7, seed=3), SHAPED),
    "T = 1, penalty and biases": (Sampling(1.0, seed=4), SHAPED),
    "T = 1, top k 40": (Sampling(1.0, top_k=40, seed=5), NO_SHAPING),
    "T = 1, top p 0.9": (Sampling(1.0, top_p=0.9, seed=6), NO_SHAPING),
    "T = 0.7, top k 20, top p 0.8": (Sampling(0.7, 20, 0.8, seed=7), SHAPED),
}
EVERY_CHOICE = list(WAYS)[:6]  # the bounds always tell


def frames(folder: Path, whole: PreTrainedModel) -> Iterator[tuple[list[int], int, Tensor]]:
    """Yield the text of a chunk, where a frame begins, and its ``[n, hidden]`` before the norm."""
    text = "\n".join(file.read_text() for file in sorted(DOCS.glob("*.md")))
    tokens = AutoTokenizer.from_pretrained(folder)(text).input_ids[:POSITIONS]
    assert len(tokens) == POSITIONS
    entered: list[Tensor] = []
    hook = whole.model.norm.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        entered.clear()
        with torch.inference_mode():
            whole.model(input_ids=torch.tensor([chunk]), use_cache=False)
        for first in range(0, len(chunk), FRAME):
            yield chunk, first, entered[0][0, first : first + FRAME]
    hook.remove()


def test_every_choice_on_real_text_is_that_of_the_whole_head(
    smollm2: Path, whole: PreTrainedModel
) -> None:
    head = Head.load(Checkpoint.open(str(smollm2)))
    head.round(Plain)
    refined: dict[str, list[int]] = {way: [] for way in WAYS}
    unsure = dict.fromkeys(WAYS, 0)
    wrong = dict.fromkeys(WAYS, 0)
    for tokens, first, hidden in frames(smollm2, whole):
        logits = head.logits(hidden)
        bounds, refine = head.bounds(hidden)
        paths = tuple(tuple(tokens[first + 1 : first + 1 + i]) for i in range(len(hidden)))
        for way, (sampling, shaping) in WAYS.items():
            choosing = Choosing(sampling, shaping, tuple(tokens[: first + 1]), paths)
            own = Bounds(bounds.lower.clone(), bounds.upper.clone())
            certificate = certify(own, choosing, refine)
            refined[way] += certificate.refined
            for choice, right in zip(certificate.choices, choosing.choose(logits), strict=True):
                unsure[way] += choice is None
                wrong[way] += choice not in (None, right)
    for way, counts in refined.items():
        told = (
            f"median {median(counts):g}, mean {sum(counts) / len(counts):.1f}, most {max(counts)}"
        )
        print(f"{way}: {len(counts)} positions, {wrong[way]} other choices, ", end="")
        print(f"{unsure[way]} left to the whole head; exact logits a position: {told}")
    assert not any(wrong.values())
    assert not any(unsure[way] for way in EVERY_CHOICE)
    assert all(unsure[way] < POSITIONS / 5 for way in WAYS)
    assert all(median(refined[way]) < 100 for way in WAYS)
