"""What this process may still take is the least of what the computer and its limits leave."""

import resource
from pathlib import Path

import psutil
import pytest
import torch

from peers.compute import free_memory
from peers.compute.free_memory import cgroup_bytes_left, free_bytes

CPU = torch.device("cpu")
MB = 1 << 20


def test_a_limited_address_space_counts() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    room_bytes = 256 * MB
    resource.setrlimit(
        resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room_bytes, before[1])
    )
    try:
        assert 0 < free_bytes(CPU) <= room_bytes
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_groups_of_the_second_version(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "root"
    own.write_text("0::/outer/inner\n")
    group(
        root / "outer",
        memory__max="1000",
        memory__current="900",
        memory__stat="anon 1\ninactive_file 300\n",
    )
    group(root / "outer/inner", memory__max="max", memory__current="5", memory__stat="")
    assert list(cgroup_bytes_left(own, root)) == [400]


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "root"
    own.write_text("5:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    # Inside a container the path is not there: its own group is mounted as the root.
    group(
        root / "memory",
        memory__limit_in_bytes="2000",
        memory__usage_in_bytes="1500",
        memory__stat="inactive_file 7\ntotal_inactive_file 100\n",
    )
    assert list(cgroup_bytes_left(own, root)) == [600]


def test_no_groups_no_limit(tmp_path: Path) -> None:
    assert list(cgroup_bytes_left(tmp_path / "none", tmp_path)) == []


def test_the_tightest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, root = tmp_path / "own", tmp_path / "root"
    own.write_text("0::/\n")
    group(root, memory__max="2000", memory__current="500", memory__stat="")
    monkeypatch.setattr(free_memory, "OWN_CGROUPS", own)
    monkeypatch.setattr(free_memory, "CGROUPS", root)
    assert free_bytes(CPU) == 1500
