"""torch takes huge pages and threads that sleep, unless the user decided otherwise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.util.torch_environment import SETTINGS, prepare_torch

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Memory that the kernel has put into huge pages, in KB, once a tensor of 64 MB is filled.
MEASURE = """
import swarm, torch
tensor = torch.ones(1 << 24)
print(sum(int(line.split()[1]) for line in open("/proc/self/smaps") if "AnonHuge" in line))
"""
# What torch's OpenMP says of itself goes to stderr when it is loaded.
TELL = "import swarm, torch; torch.ones(8).sum()"


def printed(program: str, **more: str) -> tuple[str, str]:
    """Run a program in an environment that says nothing of `SETTINGS`; return stdout, stderr."""
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=plain | more,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", SETTINGS)
def test_a_choice_of_the_user_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    prepare_torch()
    assert os.environ[name] == "0"


def test_importing_swarm_puts_large_tensors_into_huge_pages() -> None:
    if not ENABLED.exists() or "[madvise]" not in ENABLED.read_text():
        pytest.skip("this system gives huge pages to all programs, or to none")
    assert int(printed(MEASURE)[0]) > 0


def test_importing_swarm_has_threads_sleep_while_they_wait() -> None:
    told = printed(TELL, OMP_DISPLAY_ENV="true")[1]
    assert re.search(r"OMP_WAIT_POLICY *= *'PASSIVE'", told)
