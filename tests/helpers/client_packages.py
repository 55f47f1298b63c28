"""Provide clients of other projects, for the tests marked `clients`.

``python tests/helpers/client_packages.py FOLDER`` installs what `PACKAGES` lists from PyPI and npm:
each client in a folder of its own, so that none changes what we or another client run on.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTING = "SWARM_TEST_CLIENTS"  # environment variable: the folder that holds them
PACKAGES = Path(__file__).parents[1] / "gateway" / "clients" / "packages.toml"
INSTALLER = "uv==0.13.9"  # installs an environment in a second or two where pip takes twenty
INSTALL_S = 180.0
AT_ONCE = 3


class Unavailable(Exception):
    """A client cannot be installed here; the message says why."""


@dataclass(frozen=True)
class Client:
    """A client and what it is installed from.

    Attributes:
        name: of its Python module, or of its package on npm, and of its folder.
        until: a date; what the packages depend on is not newer.
    """

    name: str
    packages: tuple[str, ...]
    until: str
    on_node: bool

    def is_in(self, folder: Path) -> bool:
        """Return whether these very packages are installed in its folder there."""
        stamp = folder / self.name / "installed.json"
        return stamp.is_file() and stamp.read_text() == self._stamp

    def runner(self, folder: Path) -> Path:
        """Return what runs its programs: an interpreter, or the packages of one."""
        return folder / self.name / ("node_modules" if self.on_node else "bin/python")

    def install(self, folder: Path) -> None:
        """Install it afresh, as a whole or not at all. Raise `Unavailable`."""
        into = folder / self.name
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        if self.on_node:
            quietly = ("--no-audit", "--no-fund", "--ignore-scripts", f"--before={self.until}")
            _run("npm", "install", "--prefix", f"{into}", *quietly, *self.packages)
        else:
            uv = (f"{folder / 'uv/bin/uv'}", "--quiet", "--cache-dir", f"{folder / 'uv/cache'}")
            _run(*uv, "venv", "--allow-existing", "--python", sys.executable, f"{into}")
            where = ("--python", f"{self.runner(folder)}", "--exclude-newer", self.until)
            _run(*uv, "pip", "install", *where, *self.packages)
        (into / "installed.json").write_text(self._stamp)

    @property
    def _stamp(self) -> str:
        return json.dumps([*self.packages, self.until])


def read_clients() -> dict[str, Client]:
    """Return the clients of `PACKAGES` by name."""
    listed = tomllib.loads(PACKAGES.read_text("utf-8"))
    return {
        name: Client(name, tuple(packages), listed["until"], platform == "node")
        for platform in ("python", "node")
        for name, packages in listed[platform].items()
    }


def provide(folder: Path, say: Callable[[str], None]) -> Sequence[str]:
    """Install the clients that are missing, and return why some of them cannot be installed."""
    missing = [client for client in read_clients().values() if not client.is_in(folder)]
    if not missing:
        return []
    say(f"installing {', '.join(client.name for client in missing)}")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    try:
        if not (folder / "uv").is_dir():
            _run(*pip, "install", "--no-deps", "--target", f"{folder / 'uv'}", INSTALLER)
    except Unavailable as error:
        return [str(error)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = pool.map(lambda client: _problem(client, folder), missing)
        return [problem for problem in problems if problem]


def _problem(client: Client, folder: Path) -> str:
    try:
        client.install(folder)
    except Unavailable as error:
        return f"{client.name}: {error}"
    return ""


def _run(*command: str) -> None:
    """Run a command. Raise `Unavailable` if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took more than {INSTALL_S:g} s") from None
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if done.returncode:
        raise Unavailable(" ".join(done.stderr.split()) or f"{command[0]} failed")


def main(folder: Path) -> int:
    """Provide all clients. Return an exit code."""
    problems = provide(folder, print)
    for problem in problems:
        print(f"{problem}; tests of this client are skipped", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
