"""Damaged, truncated and impossible checkpoints are one sentence that names the file."""

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging

from helpers.model_files import edit, shard
from swarm.errors import DamagedModel, ExitCode, ModelNotFound, SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.model.drafts.draft import DraftModel
from swarm.model.edge import QUIET
from swarm.model.folder import look
from swarm.model.head import Head
from swarm.model.span import Span

pytestmark = pytest.mark.usefixtures("rehearsed_again")
CASES = 120
ODD_VALUES: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    1,
    3,
    7,
    1 << 40,
    1 << 70,
    1.5,
    1e300,
    [],
    [0],
    {},
    {"a": 1},
    True,
)


def use(model: Path) -> None:
    """Everything that a peer and a client do with a checkpoint."""
    checkpoint = Checkpoint.open(str(model))
    checkpoint.tokenizer()
    _ = (
        checkpoint.fingerprint,
        checkpoint.eos_token_ids,
        checkpoint.generation_config,
        checkpoint.max_positions,
    )
    Head.load(checkpoint)
    Span.load(checkpoint, 0, 1)


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def randomize(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([1, 8, 9, 100, 5000])))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def flip(path: Path, rng: random.Random) -> None:
    """Change some bytes, most of them near the beginning."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 20])):
        content[min(int(rng.expovariate(1 / 300)), len(content) - 1)] = rng.randrange(256)
    path.write_bytes(bytes(content))


def change(path: Path, rng: random.Random) -> None:
    """Give some key of a JSON file another value, at any depth; of other files, some bytes."""
    if path.suffix != ".json":
        return flip(path, rng)
    content = json.loads(path.read_text())
    if rng.random() < 0.1:
        content = rng.choice(ODD_VALUES)
    else:
        place = content
        while True:
            key = rng.choice(sorted(place))
            if not (isinstance(place[key], dict) and place[key]) or rng.random() < 0.3:
                break
            place = place[key]
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(ODD_VALUES)
    return path.write_text(json.dumps(content)) and None


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    truncate,
    empty,
    randomize,
    remove,
    flip,
    *[change] * 7,
)


def test_no_damage_is_a_fault_of_ours(sound: Path, tmp_path: Path) -> None:
    """What a damaged folder gives is a sentence with exit code 5, or a model that works."""
    rng = random.Random(14)
    refused: list[SwarmError] = []
    for case in range(CASES):
        model = Path(shutil.copytree(sound, tmp_path / "model"))
        path = rng.choice(
            sorted(each for each in model.iterdir() if each.suffix in (".json", ".safetensors"))
        )
        if rng.random() < 0.4:
            path = model / "config.json"
        damage = rng.choice(DAMAGES)
        damage(path, rng)
        try:
            use(model)
        except SwarmError as error:
            refused.append(error)
        except Exception as error:  # told with what was done
            raise AssertionError(f"case {case}: {damage.__name__} of {path.name}") from error
        shutil.rmtree(model)
    assert CASES / 3 < len(refused) < CASES
    assert {error.exit_code for error in refused} == {ExitCode.LOCAL}
    assert max(len(str(error)) for error in refused) < 1000


@pytest.mark.parametrize("damage", [truncate, empty, randomize, remove])
@pytest.mark.parametrize("which", ["config.json", "model.safetensors.index.json", "shard"])
def test_the_file_is_named_before_anything_heavy_is_done(
    which: str, damage: Any, model: Path
) -> None:
    path = shard(model) if which == "shard" else model / which
    damage(path, random.Random(3))
    if damage is remove and "index" in which:
        look(str(model))  # all shards are there, and no list of them is needed
        return
    with pytest.raises((DamagedModel, ModelNotFound)) as caught:
        look(str(model))
    assert path.name in str(caught.value)
    with pytest.raises(type(caught.value)):
        Checkpoint.open(str(model))


@pytest.mark.parametrize("content", ["{}", "{", "", '{"version": "1.0"}'])
def test_a_tokenizer_that_is_none(content: str, model: Path) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        Checkpoint.open(str(model)).tokenizer()
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        DraftModel.load(str(model), None, None)


def test_a_folder_without_a_tokenizer_may_be_served_and_not_asked(model: Path) -> None:
    for file in model.glob("*token*"):
        file.unlink()
    checkpoint = Checkpoint.open(str(model))
    Span.load(checkpoint, 0, 1)
    with pytest.raises(DamagedModel, match=r"tokenizer\.json"):
        checkpoint.tokenizer()


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 1 << 40, "x", None])
def test_impossible_sizes_name_the_field(field: str, value: int, model: Path) -> None:
    edit(model / "config.json", **{field: value})
    with pytest.raises(SwarmError, match=rf"config\.json.*{field}") as caught:
        Checkpoint.open(str(model))
    assert caught.value.exit_code == ExitCode.LOCAL


@pytest.mark.parametrize("model_type", ["bert", "mamba", "falcon_h1"])
def test_libraries_say_nothing_before_our_sentence(
    model_type: str, model: Path, logged: list[str]
) -> None:
    edit(model / "config.json", model_type=model_type)
    with pytest.raises(SwarmError) as caught:
        use(model)
    assert caught.value.exit_code == ExitCode.LOCAL
    assert logged == []


def test_transformers_logs_again_afterwards() -> None:
    before = transformers_logging.get_verbosity()
    with QUIET:
        with QUIET:
            pass
        assert transformers_logging.get_verbosity() > logging.CRITICAL
    assert transformers_logging.get_verbosity() == before
