"""A quantized swarm over real peers: it serves the quantized model, and no other."""

from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.loopback import ask, dialed, opening, soon
from helpers.swarm_in_process import Material, Swarm, swarm_of
from swarm.client.models import ClientModels
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.problems import problems
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import QUANTIZATIONS, Quantization, settle
from swarm.model.span import Span
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault

STAGES = [(0, 4), (4, 8)]
NEW = 40
PROMPT = next(islice(problems(2026, held_out=True), 1)).prompt

for library in ("torchao", "bitsandbytes", "accelerate"):
    pytest.importorskip(
        library, reason="quantized weights are an extra: pip install 'swarm[quant]'"
    )


@pytest.fixture(scope="module", params=QUANTIZATIONS.values(), ids=lambda each: each.name)
def quantized(request: pytest.FixtureRequest) -> Material:
    """The demo target, quantized, with its draft."""
    checkpoint = Checkpoint.open(locate(TARGET), request.param)
    spans = {stage: Span.load(checkpoint, *stage) for stage in STAGES}
    return Material(
        checkpoint,
        spans,
        ClientModels.load(locate(TARGET), locate(DRAFT), quantization=request.param),
    )


def whole(quantization: Quantization, prompt: list[int]) -> tuple[int, ...]:
    """Return transformers' tokens with the same quantization."""
    model = AutoModelForCausalLM.from_pretrained(
        locate(TARGET),
        dtype=torch.float32,
        device_map={"": "cpu"},
        quantization_config=quantization.settings(["lm_head"], torch.float32),
    )
    settle(model)
    output = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)
    return tuple(output[0, len(prompt) :].tolist())


async def test_the_text_is_that_of_the_quantized_model_and_honest_peers_agree(
    quantized: Material,
) -> None:
    prompt = quantized.models.tokenizer(PROMPT).input_ids
    assert quantized.checkpoint.quantization is not None
    expected = whole(quantized.checkpoint.quantization, prompt)
    serving = swarm_of(lambda: Swarm(quantized), *STAGES, *STAGES, max_positions=512)
    async with serving as swarm, swarm.audits() as audits:
        for way in ({"window": 0}, {}):
            text = await soon(swarm.write(prompt=prompt, max_new_tokens=NEW, logit_bias={}, **way))
            assert text.token_ids == expected
            assert (text.stats.drafted_tokens > 0) == (way == {})
        await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements) == (2, 0)


async def test_who_asks_for_another_quantization_is_refused(quantized: Material) -> None:
    async with swarm_of(lambda: Swarm(quantized), STAGES[0]) as swarm:
        (peer,) = swarm.up
        async with dialed(peer.server) as link:
            for other in quantized.checkpoint.siblings:
                answer = await ask(link, opening(other, *STAGES[0]))
                assert isinstance(answer, Fault)
                assert answer.code == FaultCode.WRONG_MODEL
