"""Of a model on the hub, the bytes of the needed tensors are fetched, once, and no others."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.hub import REPO, LocalHub, local_hub
from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES
from swarm.client.models import ClientModels
from swarm.errors import DamagedModel, ModelNotFound
from swarm.model import source
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import read_places
from swarm.model.hub import shard
from swarm.model.span import Span
from swarm.model.work import Work

FIRST_BYTES = 500
WEIGHTS = "model.safetensors"
LAYERS = ("model.layers.1", "model.layers.2")


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "WHOLE_BYTES", 0)
    monkeypatch.setattr(shard, "FIRST_BYTES", FIRST_BYTES)
    monkeypatch.setattr(shard, "GAP_BYTES", 0)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in several files, not to be changed."""
    folder = tmp_path_factory.mktemp("hub") / "several"
    ARCHITECTURES["llama"].save(folder)
    return folder


@pytest.fixture
def single(several: Path, tmp_path: Path) -> Path:
    """The same model in one file."""
    files = sorted(several.glob("*.safetensors"))
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(several / "config.json", folder)
    save_file(dict(sorted(tensors.items())), folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.fixture
def hub(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with local_hub(single, tmp_path / "cache", monkeypatch) as hub:
        yield hub


def outputs(model: str) -> torch.Tensor:
    """What the layers [1, 3) of a model make of some vectors."""
    span = Span.load(Checkpoint.open(model), 1, 3)
    inputs = torch.randn((3, span.hidden_size), generator=torch.Generator().manual_seed(1))
    return span.forward([Work.behind(span.new_cache(), inputs)])[0]


def size_of(folder: Path, names: list[str]) -> int:
    """How many bytes the header and these tensors take."""
    places = {name: place for name, (_, place) in read_places("", folder / WEIGHTS, "").items()}
    header = min(start for start, _ in places.values())
    return header + sum(places[name][1] - places[name][0] for name in names)


def test_a_span_fetches_the_bytes_of_its_layers_once(hub: LocalHub) -> None:
    torch.testing.assert_close(outputs(REPO), outputs(str(hub.folder)), rtol=0, atol=0)
    names = [name for name in Checkpoint.open(REPO).tensor_names() if name[:14] in LAYERS]
    assert hub.weights_sent() == size_of(hub.folder, names)
    hub.sent.clear()
    outputs(REPO)
    assert hub.weights_sent() == 0


def test_what_was_fetched_before_a_break_is_not_fetched_again(hub: LocalHub) -> None:
    names = [name for name in Checkpoint.open(REPO).tensor_names() if name[:14] in LAYERS]
    hub.breaks = 3
    torch.testing.assert_close(outputs(REPO), outputs(str(hub.folder)), rtol=0, atol=0)
    assert hub.breaks == 0
    asked = {(start, stop) for file, start, stop in hub.sent if file == WEIGHTS}
    assert len({start for start, _ in asked}) == len(asked)  # from another place each time
    assert sum(stop - start for start, stop in asked) > size_of(hub.folder, names)


def test_a_hub_that_brings_nothing_is_told_in_a_sentence(hub: LocalHub) -> None:
    checkpoint = Checkpoint.open(REPO)
    checkpoint.tensor_names()
    (hub.folder / WEIGHTS).unlink()
    with pytest.raises(ModelNotFound, match=r"model.safetensors could not be fetched: .*404"):
        checkpoint.tensor("model.norm.weight")


def test_a_hub_that_sends_whole_files_only(hub: LocalHub) -> None:
    hub.ranges = False
    torch.testing.assert_close(outputs(REPO), outputs(str(hub.folder)), rtol=0, atol=0)


def test_a_file_that_is_not_what_the_hub_lists(hub: LocalHub) -> None:
    checkpoint = Checkpoint.open(REPO)
    with (hub.folder / WEIGHTS).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelNotFound, match=r"could not be fetched: the hub sent 'bytes 0-499/"):
        checkpoint.tensor_names()


@pytest.mark.parametrize("header", [b"\xff" * 600, (20).to_bytes(8, "little") + b"x" * 600, b"ab"])
def test_a_header_that_is_none(hub: LocalHub, header: bytes) -> None:
    (hub.folder / WEIGHTS).write_bytes(header)
    with pytest.raises(DamagedModel, match=r"model\.safetensors"):
        Checkpoint.open(REPO).tensor_names()


def test_a_small_file_is_fetched_as_a_whole(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the hub's own cache, where others find it; and so is none that is not needed."""
    monkeypatch.setattr(source, "WHOLE_BYTES", 1 << 20)
    index = json.loads((several / "model.safetensors.index.json").read_text())["weight_map"]
    with local_hub(several, tmp_path / "cache", monkeypatch) as hub:
        checkpoint = Checkpoint.open(REPO)
        assert checkpoint.name == REPO
        assert checkpoint.fingerprint == Checkpoint.open(str(several)).fingerprint
        checkpoint.load(["model.norm.weight"])
        whole = {file for file, start, stop in hub.sent if stop == (several / file).stat().st_size}
        assert {file for file in whole if file.endswith(".safetensors")} == {
            index["model.norm.weight"]
        }
        hub.sent.clear()
        Checkpoint.open(REPO).load(["model.norm.weight"])
        assert hub.weights_sent() == 0


def test_a_model_in_several_files_is_checked_before_it_is_loaded(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(several, tmp_path / "misfit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 49}))
    with local_hub(folder, tmp_path / "cache", monkeypatch) as hub:
        checkpoint = Checkpoint.open(REPO)
        stored = checkpoint.stored()
        assert stored == Checkpoint.open(str(folder)).stored()
        headers = hub.weights_sent()
        with pytest.raises(Exception, match="has the shape"):
            Span.load(checkpoint, 0, 1)
        assert hub.weights_sent() == headers


def test_a_client_without_a_head_fetches_no_weights(hub: LocalHub) -> None:
    tokenizer_of(WORDS).save_pretrained(hub.folder)
    ClientModels.load(REPO, None, head=False)
    assert hub.weights_sent() == 0
