"""How much memory this process may still take: of the device, and of its cgroups' limits."""

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device.

    Weights come to a GPU by way of the computer's memory, so they have to fit both.
    """
    if device.type == "cuda":
        return min(int(torch.cuda.mem_get_info(device)[0]), free_bytes(torch.device("cpu")))
    allowed = [_address_space_left(), *cgroup_bytes_left(OWN_CGROUPS, CGROUPS)]
    return min(
        [int(psutil.virtual_memory().available), *(left for left in allowed if left is not None)]
    )


def cgroup_bytes_left(own: Path, root: Path) -> Iterator[int]:
    """Yield the bytes that the limits of this process's cgroups, and of their parents, leave.

    Args:
        own: the file that names the groups, one line for each hierarchy:
            ``number:controllers:path``.
        root: where their hierarchies are mounted.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            base = root
            names = ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            left = _left_in(base.joinpath(*parts[:depth]), *names)
            if left is not None:
                yield left


def _left_in(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Return limit less usage, not counting cached files; None if there is no limit."""
    try:
        most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
        cached = re.search(
            rf"^{reclaimable} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE
        )
    except (OSError, ValueError):
        return None
    if not most.isdecimal():  # "max"
        return None
    return max(0, int(most) - used + (int(cached[1]) if cached else 0))


def _address_space_left() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, int(limit) - int(psutil.Process().memory_info().vms))
