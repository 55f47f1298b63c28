"""Models in the bits of their publishers over real peers: token for token as undisturbed.

With windows and branches, while peers are killed, over turns of a conversation, and audited.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import PreTrainedModel

from helpers.gguf_files import Q4_0, convert
from helpers.loopback import WORDS, soon, tokenizer_of
from helpers.models import Architecture
from helpers.published import PUBLISHED, publish
from helpers.strikes import WAYS, killing
from helpers.swarm_in_process import (
    NEW,
    PROMPT,
    STAGES,
    Material,
    Swarm,
    changed_slightly,
    greedy_text,
    swarm_of,
)
from swarm.model.stored.packed import PackedTensor

REMARK = [11, 12, 13]
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "max_position_embeddings": 256}
DENSE = Architecture("llama", SIZES)
# Dense in one layer; experts, of which a token hits two of four, in the others.
EXPERTS = Architecture(
    "qwen3_moe",
    {**SIZES, "moe_intermediate_size": 32, "num_experts_per_tok": 2, "mlp_only_layers": [1]}
    | {"num_experts": 4, "num_local_experts": 4},
)


class Packed(NamedTuple):
    """A swarm's models, and transformers' model with the numbers that the target's bits mean."""

    material: Material
    whole: PreTrainedModel


def fp8(folder: Path) -> Packed:
    target, whole = publish(EXPERTS, PUBLISHED["fp8 blocks"], folder)
    changed_slightly(EXPERTS.save(folder / "draft")).save_pretrained(folder / "draft")
    for each in (target, folder / "draft"):
        tokenizer_of(WORDS).save_pretrained(each)
    return Packed(Material.of(target, folder / "draft", folder / "cache"), whole)


def gguf(folder: Path) -> Packed:
    """The draft is such a file, too."""
    content, whole = convert(DENSE.save(folder / "plain"), Q4_0)
    draft, _ = convert(changed_slightly(DENSE.save(folder / "plain")), Q4_0)
    files = content.write(folder / "Target.gguf"), draft.write(folder / "Draft.gguf")
    return Packed(Material.of(*files, folder / "cache"), whole)


@pytest.fixture(scope="module", params=[fp8, gguf], ids=["fp8", "gguf"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    made: Packed = request.param(tmp_path_factory.mktemp("models"))
    return made


@pytest.fixture(scope="module")
def material(packed: Packed) -> Material:
    for span in packed.material.spans.values():
        assert any(isinstance(each, PackedTensor) for each in span._decoder.parameters())
    return packed.material


@pytest.fixture(scope="module")
def expected(packed: Packed) -> tuple[int, ...]:
    return greedy_text(packed.whole, PROMPT)


async def test_a_peer_that_dies_is_replaced(
    make: Callable[[], Swarm], expected: tuple[int, ...]
) -> None:
    for way in WAYS[1:]:
        async with swarm_of(make, *STAGES, *STAGES) as swarm:
            assert all(peer.span.branches for peer in swarm.up)
            undisturbed = await soon(swarm.write(**way))
            assert undisturbed.token_ids == expected
            stats = undisturbed.stats
            assert 0 < stats.accepted_tokens < stats.drafted_tokens
            text = await soon(swarm.write(killing(1), **way))
            assert text.token_ids == expected
            assert len(text.stats.failovers) == 1


async def test_turns_are_kept_and_honest_peers_agree(
    make: Callable[[], Swarm], packed: Packed, expected: tuple[int, ...]
) -> None:
    prompt = [*PROMPT, *expected, *REMARK]
    async with swarm_of(make, *STAGES, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
        assert (await soon(swarm.write(keep=True))).token_ids == expected
        second = await soon(swarm.write(prompt=prompt, keep=True))
        assert second.token_ids == greedy_text(packed.whole, prompt)
        assert second.stats.cached_tokens == len(PROMPT) + NEW - 1
        await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements) == (2, 0)
