"""Try every causal language model of transformers: its logits are right, or it is refused.

``python tests/helpers/all_architectures.py [MODEL_TYPE...]`` prints the outcome for each type.
"""

import sys
import tempfile
from enum import Enum
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.local_chain import BOUND
from swarm.client.judging import judge
from swarm.decoding.certificate import Choosing
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.errors import SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.kernels.int8 import Plain
from swarm.model.miniature import miniatures
from swarm.model.span import Span, Work

IDS = torch.tensor([7, 9, 30, 11, 12, 13, 14])
CHUNKS = ((0, 3), (3, 6), (6, 7))
INCOMPLETE = ("deepseek_v2", "ministral", "nemotron")  # their default configurations make no model
MAX_LAYERS_NUMEL = 1 << 27


class Outcome(Enum):
    """The outcome for one model type."""

    RIGHT = "right"
    REFUSED = "refused"  # with a sentence
    NO_MODEL = "no small model can be made here"
    WRONG = "WRONG"
    FAULT = "FAULT"  # refused by an exception other than a `SwarmError`


def survey(model_type: str, folder: Path) -> tuple[Outcome, str]:
    """Save a small random model of this type, and serve it by two spans and a head, in chunks."""
    try:
        whole, expected = _whole(model_type)
    except Exception as error:  # some classes need more than a configuration's defaults
        return Outcome.NO_MODEL, f"{type(error).__name__}: {error}"
    whole.save_pretrained(folder)
    try:
        got = _served(Checkpoint.open(str(folder)))
    except SwarmError as error:
        return Outcome.REFUSED, str(error)
    except Exception as error:
        return Outcome.FAULT, f"{type(error).__name__}: {error}"
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    return (
        Outcome.RIGHT if difference <= 10 * BOUND else Outcome.WRONG,
        f"relative error {difference:.1e}",
    )


def _whole(model_type: str) -> tuple[PreTrainedModel, torch.Tensor]:
    config = AutoConfig.for_model(model_type).get_text_config(decoder=True)
    failure: Exception | None = None
    for miniature in miniatures(config):
        try:
            small = miniature()
            with torch.device("meta"):
                numel = sum(
                    each.numel() for each in AutoModelForCausalLM.from_config(small).parameters()
                )
            if numel > MAX_LAYERS_NUMEL:
                raise ValueError("too large")
            torch.manual_seed(3)
            model = (
                AutoModelForCausalLM.from_config(small, attn_implementation="eager").float().eval()
            )
            with torch.inference_mode():
                for parameter in model.parameters():
                    spread = 0.3 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5
                    parameter.add_(torch.randn_like(parameter), alpha=spread)
                logits = model(input_ids=IDS[None], use_cache=False).logits[0]
            if not logits.isfinite().all():
                raise ValueError("its logits are no numbers")
            return model, logits
        except Exception as error:  # as above
            failure = error
    raise failure or ValueError("no miniature")


def _served(checkpoint: Checkpoint) -> torch.Tensor:
    layers = checkpoint.num_layers
    middle = (layers + 1) // 2
    spans = [
        Span.load(checkpoint, *ends)
        for ends in ((0, middle), (middle, layers))
        if ends[0] < ends[1]
    ]
    head, caches, logits = Head.load(checkpoint), [span.new_cache() for span in spans], []
    for start, end in CHUNKS:
        values = IDS[start:end]
        for span, cache in zip(spans, caches, strict=True):
            values = span.forward([Work.behind(cache, values)])[0]
        logits.append(head.logits(values))
        _check_bounds(head, values)
    return torch.cat(logits)


def _check_bounds(head: Head, hidden: torch.Tensor) -> None:
    """Raise `AssertionError` if the head chooses otherwise by the bounds of an int8 copy."""
    head.round(Plain)
    places = tuple((token,) for token in range(len(hidden)))
    for sampling in (Sampling(), Sampling(1.0, seed=3)):
        choosing = Choosing(sampling, Shaping(1.2), (1, 2, 3), places)
        judged = judge(head, hidden, choosing)
        exact = choosing.choose(head.logits(hidden))
        for choice, row, right in zip(judged.choices, judged.logits, exact, strict=True):
            assert choice == right or (choice is None and row is not None), "its bounds are wrong"


def main() -> int:
    bad = 0
    for model_type in sys.argv[1:] or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        with tempfile.TemporaryDirectory() as folder:
            outcome, sentence = survey(model_type, Path(folder))
        print(f"{model_type:28} {outcome.value:10} {' '.join(sentence.split())[:200]}", flush=True)
        bad += outcome in (Outcome.WRONG, Outcome.FAULT)
    return bad


if __name__ == "__main__":
    sys.exit(main())
