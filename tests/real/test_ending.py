"""Where real models end their turns."""

from pathlib import Path

from swarm.model.checkpoint import Checkpoint
from swarm.model.ending import end_of_turn


def test_a_chat_model_ends_with_what_its_template_writes(smollm2: Path) -> None:
    checkpoint = Checkpoint.open(str(smollm2))
    end = checkpoint.tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(checkpoint.tokenizer()) == end
    assert end in checkpoint.eos_token_ids


def test_a_base_model_ends_with_what_its_tokenizer_says(gemma3: Path) -> None:
    checkpoint = Checkpoint.open(str(gemma3))
    assert end_of_turn(checkpoint.tokenizer()) is None
    assert checkpoint.tokenizer().eos_token_id in checkpoint.eos_token_ids
