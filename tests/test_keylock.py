"""One key is one peer on one computer."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import IdentityError
from swarm.identity import Identity
from swarm.keylock import KeyInUse, held

HOLD = """
import sys
from pathlib import Path
from swarm.keylock import held
with held(Path(sys.argv[1]), alone=sys.argv[2] == "alone"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = Identity.load_or_create(tmp_path / "peer.key").file
    assert file is not None
    return file


@pytest.fixture
def holder(key: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start another process that holds the key alone."""
    command = [sys.executable, "-c", HOLD, str(key), "alone"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize(("alone", "option"), [(True, "--key FILE"), (False, "--identity FILE")])
def test_a_key_that_another_process_has_is_refused(
    key: Path, holder: "subprocess.Popen[str]", alone: bool, option: str
) -> None:
    refused = pytest.raises(
        KeyInUse,
        match=rf"{key}: another process on this computer .* key file of its own \({option}; ",
    )
    with refused, held(key, alone=alone):
        pass


def test_a_process_that_was_killed_holds_nothing(
    key: Path, holder: "subprocess.Popen[str]"
) -> None:
    holder.kill()
    holder.wait()
    with held(key, alone=True):
        pass


def test_clients_share_a_key_and_a_peer_does_not(key: Path) -> None:
    with (
        held(key, alone=False),
        held(key, alone=False),
        pytest.raises(KeyInUse),
        held(key, alone=True),
    ):
        pass
    with held(key, alone=True):
        pass


def test_a_key_where_nothing_may_be_written_can_be_held(key: Path) -> None:
    key.chmod(0o400)
    key.parent.chmod(0o500)
    try:
        with held(key, alone=True), pytest.raises(KeyInUse), held(key, alone=True):
            pass
    finally:
        key.parent.chmod(0o700)


def test_a_key_in_memory_is_not_held_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    with held(Identity.generate().file, alone=True):
        pass
    with (
        pytest.raises(IdentityError, match=r"gone\.key: cannot read"),
        held(tmp_path / "gone.key", alone=True),
    ):
        pass
