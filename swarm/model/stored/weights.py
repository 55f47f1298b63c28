"""The weights of a checkpoint: some are tensors of their own, others are stored as several.

Each has the name that the model's class knows, such as ``mlp.up_proj.weight``, whatever its tensors
are called. So transformers' loader renames, stacks and joins packed weights as it does plain ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.folder import Stored
from swarm.model.stored.bitsandbytes import STATES, State
from swarm.model.stored.formats import FORMATS, IGNORED, SHAPE, Format, Misfit
from swarm.model.stored.layout import DTYPES, part_name
from swarm.model.stored.method import GPTQ_GROUPS, GROUPS, UNDECLARED, Method
from swarm.model.stored.nf4 import SCALES as ABSMAX
from swarm.model.stored.scales import as_float32
from swarm.model.stored.weight import PackedWeight

WIDE = "BF16"  # what packed weights are taken for until a dtype is asked for
NAMES = {dtype: name for name, dtype in DTYPES.items()}
NONE: Mapping[str, PackedWeight] = MappingProxyType({})
FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class _Tensors:
    """The tensors of one packed weight: part -> name."""

    format: Format
    names: Mapping[str, str]


class Weights:
    """The weights of a checkpoint by the names that its model knows.

    Args:
        model: its name, for messages.
        files: tensor -> file.
        stored: how the tensors lie in these, as far as that is known.
        read: reads a tensor of the checkpoint.
        bare: weights that are packed in a tensor of their own name, which reading it returns so.
    """

    def __init__(
        self,
        model: str,
        method: Method,
        files: Mapping[str, str],
        stored: Mapping[str, Stored],
        read: Callable[[str], torch.Tensor],
        bare: Mapping[str, PackedWeight] = NONE,
    ) -> None:
        """Raises DamagedModel and UnsupportedModel."""
        self._model = model
        self._method = method
        self._files = files
        self._stored = stored
        self._read = read
        self._bare = bare
        self._packed: dict[str, _Tensors] = {}
        claimed: set[str] = set()
        for each in FORMATS:
            if not each.methods or method.name in each.methods:
                self._find(each, claimed)
        declared = method is not UNDECLARED
        if declared and not self._packed:
            why = f"config.json says that its weights are quantized ({method.name}), and none is"
            raise UnsupportedModel(model, why)
        ignored = IGNORED if declared else frozenset()
        self._plain = {
            name: file
            for name, file in files.items()
            if name not in claimed and name.rpartition(".")[2] not in ignored
        }
        for name in method.plain:
            if f"{name}.weight" in self._packed:
                why = f"config.json says that {name} is not quantized, and its tensors are"
                raise UnsupportedModel(model, why)

    @property
    def packed(self) -> bool:
        """Whether any weight is stored packed."""
        return bool(self._packed or self._bare)

    @cached_property
    def files(self) -> dict[str, str]:
        """The file of each weight; of a packed one, the file of one of its tensors."""
        packed = {name: self._file(tensors) for name, tensors in self._packed.items()}
        return self._plain | packed

    @cached_property
    def outlines(self) -> dict[str, PackedWeight]:
        """How packed weights are stored, as far as that is known.

        Raises:
            DamagedModel: where tensors of a weight do not fit together.
        """
        found = {
            name: self._recognise(name, tensors, self._stored)
            for name, tensors in self._packed.items()
            if all(part in self._stored for part in tensors.names.values())
        }
        return found | dict(self._bare)

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """The shape of each weight, as far as that is known; of a packed one, the wide one."""
        plain = {name: self._stored[name] for name in self._plain if name in self._stored}
        wide = {name: Stored(WIDE, each.wide_shape) for name, each in self.outlines.items()}
        return plain | wide

    def tensor(self, name: str) -> torch.Tensor:
        """Read one weight.

        Raises:
            KeyError: for an unknown name.
            DamagedModel: where its tensors do not fit together.
        """
        tensors = self._packed.get(name)
        if tensors is None:
            if name not in self._plain:
                raise KeyError(name)
            return self._read(name)
        parts = {part: self._read(each) for part, each in tensors.names.items()}
        for part in (GROUPS, GPTQ_GROUPS):
            if part in parts and _in_order(parts[part]):
                del parts[part]
        held = {
            tensors.names[part]: Stored(NAMES.get(each.dtype, str(each.dtype)), tuple(each.shape))
            for part, each in parts.items()
        }
        present = {part: tensors.names[part] for part in parts}
        weight = self._recognise(name, _Tensors(tensors.format, present), held)
        try:
            parts = tensors.format.arrange(parts)
        except ValueError as error:
            why = f"holds {name}, which {error}"
            raise DamagedModel(self._model, self._file(tensors), why) from None
        if unsound := _unsound(parts, weight):
            raise DamagedModel(self._model, self._file(tensors), f"holds {name}, {unsound}")
        return weight.pack(parts, DTYPES[WIDE])

    def _find(self, own: Format, claimed: set[str]) -> None:
        """Note the weights that are stored in a format, and claim their tensors."""
        for marker in self._files:
            name = _weight_of(marker, own.marker)
            if marker in claimed or name is None:
                continue
            names = {part: part_name(name, part) for part in own.parts}
            present = {part: each for part, each in names.items() if each in self._files}
            if all(part in present for part in own.required) and self._is_meant(name, present):
                self._check_needed(name, present)
                self._packed[name] = _Tensors(own, present)
                claimed.update(present.values())

    def _check_needed(self, name: str, present: Mapping[str, str]) -> None:
        """Raise DamagedModel if a weight lacks a part that config.json speaks of."""
        needed = (part_name(name, part) for part in sorted(self._method.needed))
        if lacking := next((each for each in needed if each not in self._files), None):
            why = f"lacks {lacking}, without which {name} would mean other numbers"
            raise DamagedModel(self._model, self._files[next(iter(present.values()))], why)

    def _is_meant(self, name: str, present: Mapping[str, str]) -> bool:
        """Return whether tensors are one weight; where nothing is declared, FP8 alone tells."""
        if name in self._files and name not in present.values():
            raise DamagedModel(
                self._model, self._files[name], f"holds {name}, which is also stored packed"
            )
        if self._method is not UNDECLARED:
            return True
        return name in self._stored and self._stored[name].dtype in FLOAT8

    def _recognise(
        self, name: str, tensors: _Tensors, stored: Mapping[str, Stored]
    ) -> PackedWeight:
        parts = {part: stored[each] for part, each in tensors.names.items()}
        if tensors.format.marker in STATES.values():
            parts[tensors.format.marker] = self._state(name, tensors)
        try:
            return tensors.format.read(parts, self._method)
        except Misfit as misfit:
            why = f"holds {name}, which {misfit}"
            raise DamagedModel(self._model, self._file(tensors), why) from None

    def _state(self, name: str, tensors: _Tensors) -> Stored:
        """Return what bitsandbytes' JSON says of a weight: rows, columns, and sizes of blocks."""
        try:
            state = State.parse(self._read(tensors.names[tensors.format.marker]))
        except ValueError as error:
            why = f"holds a JSON beside {name} that cannot be read ({error})"
            raise DamagedModel(self._model, self._file(tensors), why) from None
        return Stored("JSON", (*state.shape, state.block, state.nested_block))

    def _file(self, tensors: _Tensors) -> str:
        return self._files[next(iter(tensors.names.values()))]


def _in_order(groups: torch.Tensor) -> bool:
    """Return whether columns were not sorted: they name no groups, or these one after the other."""
    if groups.dtype != torch.int32 or not groups.numel():
        return False
    if bool((groups == -1).all()):
        return True
    count = int(groups.max()) + 1
    size = -(-len(groups) // count) if 0 < count <= len(groups) else 1
    return torch.equal(groups, (torch.arange(len(groups)) // size).to(groups.dtype))


def _weight_of(tensor: str, marker: str) -> str | None:
    """Return the weight that a tensor marks as packed; None if it is no such marker."""
    if marker.startswith("weight"):
        ending = marker.removeprefix("weight")
        name = tensor.removesuffix(ending)
        return name if name != tensor and name.rpartition(".")[2] else None
    before, _, leaf = tensor.rpartition(".")
    return f"{before}.weight" if leaf == marker else None


def _unsound(parts: Mapping[str, torch.Tensor], weight: PackedWeight) -> str | None:
    """Return what is wrong with the content of a weight's tensors, in words; None if nothing is."""
    for part, tensor in parts.items():
        scales = "scale" in part or part == ABSMAX
        if scales and not bool(as_float32(tensor).isfinite().all()):
            return f"whose {part} is not finite everywhere"
        if tensor.dtype == torch.float8_e4m3fn and _has_nan(tensor):
            return f"whose {part} is not finite everywhere"
    shape = parts.get(SHAPE)
    if shape is not None and tuple(shape.flatten().tolist()) != weight.wide_shape:
        return f"whose {SHAPE} is {shape.flatten().tolist()[:4]} instead of {weight.wide_shape}"
    groups = parts.get(GROUPS)
    if groups is not None:
        count = parts["weight_scale"].shape[-1]
        if not bool(((groups >= 0) & (groups < count)).all()):
            return f"whose {GROUPS} names other groups than the {count} that it has"
    return None


def _has_nan(numbers: torch.Tensor) -> bool:
    """Return whether numbers in E4M3 hold a NaN: all bits but the sign are set."""
    bits = numbers.view(torch.int8)
    return bool((bits == 0x7F).any()) or bool((bits == -1).any())
