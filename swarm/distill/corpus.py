"""Texts with the target's states on disk: written in parts, and read again after an interruption.

A part is a safetensors file of some texts, one behind the other: ``tokens`` int32 ``[n]``,
``states`` ``[n, hidden]`` in 16 bits, and for each text ``ends`` int64, where the next one begins,
and ``prompts`` int64, how many tokens it was given.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from swarm.distill.texts import TargetText
from swarm.errors import ConfigError
from swarm.util.files import remove_unfinished, whole_file

PART = re.compile(r"part-(\d{6})\.safetensors")
LARGEST_FLOAT16 = 6e4  # states beyond it are kept in bfloat16


class Corpus:
    """The texts of one folder.

    Attributes:
        texts: how many there are.
        written: how many tokens the target has written in them.
    """

    def __init__(self, folder: Path, fingerprint: str, hidden: int) -> None:
        """Open a folder, and make it if it is not there.

        Args:
            fingerprint: of the target.

        Raises:
            ConfigError: if the folder holds the texts of another target, or a damaged part.
        """
        self.folder = folder
        self._fingerprint = fingerprint
        self._hidden = hidden
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        named = ((PART.fullmatch(each.name), each) for each in folder.iterdir())
        self._parts = sorted(each for match, each in named if match)
        self.texts = 0
        self.written = 0
        for part in self._parts:
            self._count(self._read(part))

    @property
    def token_bytes(self) -> int:
        """What a token takes on the disk."""
        return 2 * self._hidden + 4

    def append(self, texts: Sequence[TargetText]) -> None:
        """Write texts as one more part; it is there whole or not at all."""
        states = torch.cat([text.states for text in texts])
        lengths = torch.tensor([len(text.tokens) for text in texts])
        tensors = {
            "tokens": torch.cat([text.tokens for text in texts]).to(torch.int32),
            "states": sixteen_bits(states),
            "ends": lengths.cumsum(0),
            "prompts": torch.tensor([text.prompt for text in texts]),
        }
        path = self.folder / f"part-{len(self._parts):06d}.safetensors"
        with whole_file(path) as unfinished:
            save_file(tensors, unfinished, {"fingerprint": self._fingerprint})
        self._parts.append(path)
        self._count(texts)

    def __iter__(self) -> Iterator[TargetText]:
        """Read all texts, part by part."""
        for part in self._parts:
            yield from self._read(part)

    def _count(self, texts: Sequence[TargetText]) -> None:
        self.texts += len(texts)
        self.written += sum(text.written for text in texts)

    def _read(self, part: Path) -> list[TargetText]:
        try:
            with safe_open(part, framework="pt") as opened:
                fingerprint = (opened.metadata() or {}).get("fingerprint")
            tensors = load_file(part)
            tokens = tensors["tokens"].long().flatten()
            states = tensors["states"]
            ends = tensors["ends"].flatten().tolist()
            prompts = tensors["prompts"].flatten().tolist()
        except (SafetensorError, OSError, KeyError) as error:
            raise _unreadable(part, str(error)) from None
        if fingerprint != self._fingerprint or states.shape[1:] != (self._hidden,):
            problem = f"{self.folder} holds texts of another target; give another folder"
            raise ConfigError("out", problem)
        if not len(tokens) == len(states) == max(ends, default=0) or len(ends) != len(prompts):
            raise _unreadable(part, "its tensors have lengths that do not fit each other")
        bounds = list(zip([0, *ends], ends, prompts, strict=False))  # the last end begins no text
        if not all(0 <= prompt <= end - start for start, end, prompt in bounds):
            raise _unreadable(part, "a text in it ends before its prompt does")
        return [
            TargetText(tokens[start:end], states[start:end], prompt)
            for start, end, prompt in bounds
        ]


def _unreadable(part: Path, why: str) -> ConfigError:
    return ConfigError("out", f"{part} cannot be read ({why}); delete it, or give another folder")


def sixteen_bits(states: torch.Tensor) -> torch.Tensor:
    """Return states in float16, or in bfloat16 if one of them is too large for that."""
    fits = not states.numel() or float(states.abs().max()) <= LARGEST_FLOAT16
    return states.to(torch.float16 if fits else torch.bfloat16)
