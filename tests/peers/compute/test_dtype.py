"""What ``--dtype auto`` takes, and what it measures before."""

import json
from collections.abc import Callable, Iterator
from itertools import accumulate, chain, repeat
from pathlib import Path

import pytest
import torch

from helpers.model_files import edit
from helpers.models import Architecture
from helpers.published import PUBLISHED, publish
from peers.compute import dtype as module
from peers.compute.dtype import ROUNDS, ROWS, WORTH, choose_dtype, measure_bfloat16
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8, Quantization

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.dtype], Path]:
    """Return a folder with weights of a dtype."""
    folders: dict[torch.dtype, Path] = {}

    def folder(dtype: torch.dtype) -> Path:
        if dtype not in folders:
            folders[dtype] = tmp_path_factory.mktemp("stored")
            Architecture("llama").save(folders[dtype]).to(dtype).save_pretrained(folders[dtype])
        return folders[dtype]

    return folder


def forget_dtype(folder: Path, name: str | None = None) -> None:
    """Let the configuration name another dtype, or none."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.pop("dtype", None)
    file.write_text(json.dumps(config if name is None else {**config, "dtype": name}))


def never(width: int) -> bool:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("own", "pays", "taken"),
    [
        (torch.bfloat16, lambda width: True, torch.bfloat16),
        (torch.bfloat16, lambda width: False, torch.float32),
        (torch.float32, never, torch.float32),
        (torch.float16, never, torch.float32),
    ],
)
def test_a_cpu_takes_bfloat16_for_such_weights_where_it_is_faster(
    stored: Callable[[torch.dtype], Path],
    own: torch.dtype,
    pays: Callable[[int], bool],
    taken: torch.dtype,
) -> None:
    assert choose_dtype(Checkpoint.open(str(stored(own))), CPU, pays) == taken


@pytest.mark.parametrize("own", [torch.bfloat16, torch.float32, torch.float16])
def test_a_gpu_takes_what_is_stored_and_measures_nothing(
    stored: Callable[[torch.dtype], Path], own: torch.dtype
) -> None:
    assert choose_dtype(Checkpoint.open(str(stored(own))), GPU, never) == own


@pytest.mark.parametrize("quantization", [INT8], ids=lambda each: each.name)
def test_quantized_layers_stay_in_float32_on_a_cpu(
    stored: Callable[[torch.dtype], Path], quantization: Quantization
) -> None:
    checkpoint = Checkpoint.open(str(stored(torch.bfloat16)), quantization)
    assert choose_dtype(checkpoint, CPU, never) == torch.float32


def test_weights_that_are_published_packed_stay_in_float32_on_a_cpu(tmp_path: Path) -> None:
    folder, _ = publish(Architecture("llama"), PUBLISHED["fp8 blocks"], tmp_path)
    edit(folder / "config.json", dtype="bfloat16")
    checkpoint = Checkpoint.open(str(folder))
    assert choose_dtype(checkpoint, CPU, never) == torch.float32
    assert choose_dtype(checkpoint, GPU, never) == torch.bfloat16


@pytest.mark.parametrize("named", [None, "float64"])
def test_a_configuration_without_a_dtype_that_travels(tmp_path: Path, named: str | None) -> None:
    Architecture("llama").save(tmp_path).bfloat16().save_pretrained(tmp_path)
    forget_dtype(tmp_path, named)
    own = torch.bfloat16 if named is None else torch.float32
    assert choose_dtype(Checkpoint.open(str(tmp_path)), GPU, never) == own


def test_the_width_of_the_model_is_measured(
    stored: Callable[[torch.dtype], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "measure_bfloat16", lambda width: bool(asked.append(width)))
    checkpoint = Checkpoint.open(str(stored(torch.bfloat16)))
    assert choose_dtype(checkpoint, CPU) == torch.float32
    assert asked == [checkpoint.hidden_size]


def clock_of(full_ms: float, half_ms: float) -> Callable[[], float]:
    """Return a clock by which products take these times, in float32 and in bfloat16; in the first
    rounds the latter take three times as long."""
    pauses = (
        pause_ms * 1e-3
        for round_ in range(ROUNDS)
        for taken_ms in (full_ms, half_ms * (1.0 if round_ > ROUNDS // 2 else 3.0))
        for pause_ms in (0.0, taken_ms) * len(ROWS)
    )
    times: Iterator[float] = accumulate(chain(pauses, repeat(0.0)))
    return lambda: next(times)


@pytest.mark.parametrize("width", [1, 33, 32_768])
@pytest.mark.parametrize(
    ("full_ms", "half_ms", "pays"),
    [(0.8, 0.1, True), (WORTH, 0.99, True), (WORTH - 0.01, 1.0, False), (0.1, 0.3, False)],
)
def test_only_a_clear_gain_counts_and_the_first_products_warm_up(
    width: int, full_ms: float, half_ms: float, pays: bool
) -> None:
    threads = torch.get_num_threads()
    assert measure_bfloat16(width, clock_of(full_ms, half_ms)) is pays
    assert torch.get_num_threads() == threads


def test_by_a_real_clock_it_ends_with_an_answer() -> None:
    assert measure_bfloat16(64) in (True, False)
