"""``swarm-peer`` as a process: what it says, how it stops, what it leaves behind."""

import asyncio
import functools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helpers.loopback import children, eventually, soon
from helpers.models import LAYERS
from peers.cli import app
from peers.params import Bytes
from swarm.cli.main import guard
from swarm.config import Network, create_network_key, load_network_key
from swarm.errors import IdentityError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.network.dht.directory import Directory

pytestmark = pytest.mark.usefixtures("warmly")


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "peers.cli", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line: bytes = await soon(process.stdout.readline())
    return line.decode()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await soon(process.communicate())
    return process.returncode, out.decode(), err.decode()


BOOTSTRAP = ("bootstrap", "--host", "127.0.0.1", "--port", "0", "--ephemeral")


@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP", "end of input"])
async def test_a_bootstrap_node_leaves_when_it_is_asked_to(how: str) -> None:
    async with running(*BOOTSTRAP, "--json", "--until-eof") as process:
        said = json.loads(await first_line(process))
        assert said["network"] == "test"
        assert said["addresses"][0].startswith("/ip4/127.0.0.1/tcp/")
        (daemon,) = children(process.pid)
        if how == "end of input":
            assert process.stdin is not None
            process.stdin.write(b"not the end\n")
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, how))
        assert await ended(process) == (0, "", "")
        await eventually(lambda: not Path(f"/proc/{daemon}").exists())


@pytest.mark.parametrize(
    ("command", "how", "code"),
    [
        ("join", "SIGINT", 130),
        ("join", "SIGTERM", 143),
        ("join", "SIGHUP", 129),
        ("join", "end of input", 0),
        ("bootstrap", "SIGTERM", 143),  # all signals take the same way
        ("bootstrap", "end of input", 0),
    ],
)
async def test_what_is_told_to_stop_during_its_start_goes_no_further(
    command: str, how: str, code: int, tiny: Checkpoint
) -> None:
    """It starts for as long as the node that it enters through says nothing."""
    dialled = asyncio.Event()
    silent = await asyncio.start_server(lambda *_: dialled.set(), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    way_in = f"/ip4/127.0.0.1/tcp/{port}/p2p/{Identity.generate().peer_id}"
    join = (
        "join",
        str(tiny._source.path),
        "--layers",
        "0:1",
        "--host",
        "127.0.0.1",
        "--ephemeral",
        "--device",
        "cpu",
    )
    arguments = BOOTSTRAP if command == "bootstrap" else join
    async with (
        silent,
        running(*arguments, "--bootstrap", way_in, "--json", "--until-eof") as process,
    ):
        await soon(dialled.wait())
        daemons = children(process.pid)
        if how == "end of input":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, how))
        ended_with, out, err = await ended(process)
        assert (ended_with, err) == (code, "\nstopped\n" if code else "")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["open_network"] * (
            command == "join"
        )
        await eventually(lambda: not any(Path(f"/proc/{daemon}").exists() for daemon in daemons))


async def test_the_key_of_a_bootstrap_node_is_kept(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path / "key")
    async with running(*BOOTSTRAP[:-1], "--key", str(tmp_path / "key")) as process:
        assert "of the network test" in await first_line(process)
        assert (await first_line(process)).rstrip().endswith(f"/p2p/{identity.peer_id}")
        process.terminate()
        assert (await ended(process))[0] == 0


async def test_a_peer_that_is_terminated_withdraws_and_leaves_nothing(tiny: Checkpoint) -> None:
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as bootstrap:
        where = (
            "--bootstrap",
            bootstrap.addresses[0],
            "--host",
            "127.0.0.1",
            "--ephemeral",
            "--device",
            "cpu",
        )
        async with running(
            "join", str(tiny._source.path), "--layers", f"0:{LAYERS}", "--json", *where
        ) as process:
            opened, serving = (
                json.loads(await first_line(process)),
                json.loads(await first_line(process)),
            )
            assert (opened["event"], opened["network"]) == ("open_network", "test")
            assert "anyone may join" in opened["text"]
            assert (serving["event"], serving["layers"], serving["fingerprint"]) == (
                "serving",
                [0, 4],
                tiny.fingerprint,
            )
            assert serving["text"].startswith("serving layers 0:4 of 4 of tiny")
            assert len(await bootstrap.peers(tiny.fingerprint, LAYERS)) == 1
            (daemon,) = children(process.pid)
            process.terminate()
            code, out, err = await ended(process)
            assert (code, err) == (0, "")
            assert [json.loads(line)["event"] for line in out.splitlines()] == ["leaving"]
            assert await bootstrap.peers(tiny.fingerprint, LAYERS) == []
            await eventually(lambda: not Path(f"/proc/{daemon}").exists())


async def test_a_killed_peer_takes_its_daemon_with_it() -> None:
    async with running(*BOOTSTRAP, "--json") as process:
        await first_line(process)
        (daemon,) = children(process.pid)
        process.kill()
        await soon(process.wait())
        await eventually(lambda: not Path(f"/proc/{daemon}").exists())


async def test_a_peer_without_a_bootstrap_node_says_so_before_it_loads_anything(
    tiny: Checkpoint,
) -> None:
    async with running("join", str(tiny._source.path), "--layers", "0:1") as process:
        code, out, err = await ended(process)
        assert (code, out) == (3, "")
        assert err.startswith("error: No bootstrap node is configured")
        assert len(err.splitlines()) == 1


async def test_a_port_that_is_taken_is_one_sentence() -> None:
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as first:
        port = first.addresses[0].split("/")[4]
        async with running(*BOOTSTRAP, "--port", port) as second:
            code, _, err = await ended(second)
            assert code == 5
            assert "give another --port" in err
            assert len(err.splitlines()) == 1


async def test_the_doctor_ends_with_1_where_something_is_to_be_done() -> None:
    async with running("doctor") as process:
        code, out, err = await ended(process)
        assert (code, err) == (1, "")
        assert "No bootstrap node is configured" in out


async def test_the_doctor_tells_programs_the_same() -> None:
    async with running("doctor", "--json") as process:
        code, out, err = await ended(process)
    assert (code, err) == (1, "")
    said = json.loads(out)
    assert said["ok"] is False
    by_subject = {finding["subject"]: finding for finding in said["findings"]}
    assert "No bootstrap node is configured" in by_subject["network"]["remedy"]
    assert by_subject["port"] == {
        "subject": "port",
        "fact": "any free port can be listened on",
        "remedy": "",
        "advice": "",
    }


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("4GB", 4_000_000_000), ("1.5GiB", 3 << 29), ("512 MB", 512_000_000), ("1kb", 1000)],
)
def test_memory_is_given_with_a_unit(text: str, nbytes: int) -> None:
    assert Bytes().convert(text, None, None) == nbytes


def run(*arguments: str) -> int:
    return guard(functools.partial(app, list(arguments)), "swarm-peer")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("join", "bootstrap", "doctor", "new-network-key"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("join",), "Missing argument 'MODEL'"),
        (("join", "model", "--memory", "4"), "no amount of memory; give a number with its unit"),
        (("join", "model", "--memory", "0GB"), "no amount of memory; give a number with its unit"),
        (("join", "model", "--max-layers", "0"), "0 is not in the range"),
        (("join", "model", "--layers", "4:4"), "no span of layers"),
        (("join", "model", "--layers", "four"), "no span of layers"),
        (("join", "model", "--layers", "0:4", "--announce", "here"), "no address; give HOST:PORT"),
        (
            ("join", "model", "--layers", "0:4", "--announce", "here:70000"),
            "no address; give HOST:PORT",
        ),
        (("join", "model", "--layers", "0:4", "--host", "localhost"), "no IPv4 address"),
        (("join", "model", "--layers", "0:4", "--cache-tokens", "0"), "0 is not in the range"),
        (("bootstrap", "--port", "70000"), "70000 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_end_with_code_2_and_one_sentence(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last


def test_a_network_key_is_made_once_and_only_for_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "network.key"
    app(["new-network-key", str(path)], standalone_mode=False)
    assert "--network-key" in capsys.readouterr().out
    key = load_network_key(path)
    with pytest.raises(IdentityError, match="is there already"):
        app(["new-network-key", str(path)], standalone_mode=False)
    assert load_network_key(path) == key
    app(["new-network-key", str(tmp_path / "other.key"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / "other.key")}


async def test_a_network_key_that_others_can_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "network.key"
    create_network_key(path)
    path.chmod(0o644)
    async with running(*BOOTSTRAP, "--network-key", str(path)) as process:
        code, _, err = await ended(process)
        assert (code, err) == (
            5,
            f"error: {path}: others can read this private key, so run `chmod 600 {path}`.\n",
        )
