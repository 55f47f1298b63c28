"""A GGUF file is found by its path or its folder, alone or in parts."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.gguf_files import F32, Q8_0, Content, convert
from helpers.hub import REPO, local_hub
from helpers.models import ARCHITECTURES
from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.anatomy import study
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look
from swarm.model.quantization import INT8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return ARCHITECTURES["llama"].save(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def file(model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))
    return convert(model, Q8_0)[0].write(tmp_path / "Tiny.gguf")


def in_parts(content: Content, folder: Path, count: int = 3) -> list[Path]:
    """Write a file in parts, as llama.cpp's ``gguf-split`` does."""
    names = list(content.tensors)
    paths = []
    for number in range(count):
        own = {name: content.tensors[name] for name in names[number::count]}
        metadata = content.metadata if number == 0 else {"general.architecture": "llama"}
        part = Content({**metadata, "split.no": number, "split.count": count}, own)
        paths.append(part.write(folder / f"Tiny-{number + 1:05}-of-{count:05}.gguf"))
    return paths


def test_the_fingerprint_is_that_of_the_bytes_alone(file: Path, tmp_path: Path) -> None:
    one = Checkpoint.open(str(file))
    other = Checkpoint.open(str(shutil.copy(file, tmp_path / "other-name.gguf")))
    assert one.fingerprint == other.fingerprint
    assert (one.name, other.name) == ("Tiny", "other-name")
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(content)
    assert Checkpoint.open(str(changed)).fingerprint != one.fingerprint


def test_a_folder_with_one_file_is_that_file(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = folder / "Linked.gguf"
    link.symlink_to(file)
    look(str(folder))
    assert Checkpoint.open(str(folder)).name == "Linked"
    shutil.copy(file, folder / "Second.gguf")
    for refuse in (look, Checkpoint.open):
        with pytest.raises(UnsupportedModel, match=r"2 GGUF files.*Linked.gguf, Second.gguf"):
            refuse(str(folder))


def test_a_file_in_parts_is_one_model(model: PreTrainedModel, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    paths = in_parts(convert(model, Q8_0)[0], folder)
    whole = Checkpoint.open(str(file))
    fingerprints = set()
    for name in (folder, paths[0], paths[2]):
        checkpoint = Checkpoint.open(str(name))
        assert checkpoint.name == "Tiny"
        fingerprints.add(checkpoint.fingerprint)
        for tensor in checkpoint.tensor_names():
            assert torch.equal(checkpoint.tensor(tensor).clone(), whole.tensor(tensor).clone())
    assert len(fingerprints) == 1
    paths[1].unlink()
    with pytest.raises(DamagedModel, match=r"Tiny-00002-of-00003\.gguf is missing"):
        look(str(folder))


def test_a_part_under_another_name_is_told(model: PreTrainedModel, tmp_path: Path) -> None:
    part = in_parts(convert(model, F32)[0], tmp_path)[0]
    with pytest.raises(DamagedModel, match="one of several parts"):
        look(str(part.rename(tmp_path / "renamed.gguf")))


@pytest.mark.parametrize("name", ["missing.gguf", "someone/model-q4.gguf"])
def test_a_file_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ModelNotFound, match="hf download"):
        look(name)


def test_an_empty_file_and_one_that_shrinks_are_refused(file: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(str(file))
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DamagedModel, match="ends within"):
        checkpoint.load(checkpoint.tensor_names())
    file.write_bytes(b"")
    with pytest.raises(DamagedModel, match="is empty"):
        look(str(file))


def test_it_is_not_quantized_again(file: Path) -> None:
    with pytest.raises(UnsupportedModel, match="served in these bits alone"):
        study(Checkpoint.open(str(file), INT8))


def test_a_repository_of_gguf_files_names_one_to_download(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(file, folder)
    with (
        local_hub(folder, tmp_path / "hub-cache", monkeypatch),
        pytest.raises(UnsupportedModel, match=rf"\(hf download {REPO} Tiny\.gguf\)"),
    ):
        Checkpoint.open(REPO)


@pytest.mark.parametrize("part", ["00001-of-00000", "00000-of-00002", "00005-of-00002"])
def test_a_name_that_is_that_of_no_part_is_told(part: str, file: Path, tmp_path: Path) -> None:
    odd = file.rename(tmp_path / f"Tiny-{part}.gguf")
    for refuse in (look, Checkpoint.open):
        with pytest.raises(DamagedModel, match=r"by its name part [015] of [02]; give it back"):
            refuse(str(odd))


def test_a_folder_may_be_called_like_a_file(model: PreTrainedModel, tmp_path: Path) -> None:
    folder = tmp_path / "Tiny.gguf"
    model.save_pretrained(folder)
    look(str(folder))
    assert Checkpoint.open(str(folder)).name == "Tiny.gguf"
