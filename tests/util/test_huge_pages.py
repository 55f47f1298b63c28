"""torch takes huge pages for large tensors, unless the user decided otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.util.huge_pages import VARIABLE, use_huge_pages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Memory that the kernel has put into huge pages, in KB, once a tensor of 64 MB is filled.
MEASURE = """
import swarm, torch
tensor = torch.ones(1 << 24)
print(sum(int(line.split()[1]) for line in open("/proc/self/smaps") if "AnonHuge" in line))
"""


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    use_huge_pages()
    assert os.environ[VARIABLE] == "0"


def test_importing_swarm_puts_large_tensors_into_huge_pages() -> None:
    if not ENABLED.exists() or "[madvise]" not in ENABLED.read_text():
        pytest.skip("this system gives huge pages to all programs, or to none")
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
