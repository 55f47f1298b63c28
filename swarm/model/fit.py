"""Whether the weights of a checkpoint are those of the model that its configuration describes.

transformers' loader renames and converts tensors, and reports which ones did not fit. `check_fit`
lets it load the whole model on the meta device, from shapes alone: only the headers of the files
are read, so that a mismatch is found before a network is entered. `check_report` judges such a
report, also that of a real loading.
"""

import copy
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from swarm.errors import UnsupportedModel
from swarm.model.anatomy import MODELS_OWN_ATTENTION, Anatomy, find_layers
from swarm.model.checkpoint import Checkpoint
from swarm.model.edge import explained
from swarm.model.folder import CONFIG_FILE, PLAIN_DTYPES, Stored
from swarm.model.stored.packed import PackedTensor

# Tensors in the layers of published checkpoints that are not parameters:
HARMLESS = re.compile(
    r"(^|\.)("
    # tables of positions, which the classes compute: LLaMA, Falcon, GPT-NeoX, ChatGLM, fairseq
    r"(\w*_)?(rotary|rope)(_\w+)?\..+|inv_freq|(cos|sin)_cached|freqs_cis|_float_tensor|position_ids"
    # causal masks: GPT-2, GPT-J, GPT-Neo, GPT-NeoX, CodeGen (their other part is MASK)
    r"|masked_bias|causal_mask"
    # remains of the training: Transformer Engine, batch norms, balanced experts
    r"|_extra_state|num_batches_tracked|(local_)?tokens_per_expert"
    r")$"
)
# A causal mask, [1, 1, n, n], unless it has one dimension: then it is added to the attention.
MASK = re.compile(r"(^|\.)\w*(attn|attention)\.bias$")
MAX_LAYER_DIGITS = 6  # of the number of a layer in the name of a tensor
# Parts beside the layers: a norm there would change the model's output. Others are harmless: layers
# that predict further tokens, towers for images and sound, heads for other tasks.
NORM = re.compile(r"(\w*_)?(layer_?|rms_?)?norm(_?\w+)?|ln(_?\w+)?", re.IGNORECASE)
OTHER_PARTS = re.compile(
    r"mtp|nextn|eagle|vision|visual|image|img|audio|speech|projector|pool|score|classif",
    re.IGNORECASE,
)

_fitting: "weakref.WeakKeyDictionary[Checkpoint, Packing]" = weakref.WeakKeyDictionary()
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Packing:
    """What of a model stays packed in memory.

    Attributes:
        layers: of each layer, how many weights are packed, and in how many bytes.
        largest: weights of the largest matrix that is widened.
        largest_plain: weights of the largest parameter that is not packed.
    """

    layers: tuple[tuple[int, int], ...]
    largest: int
    largest_plain: int

    @classmethod
    def of(cls, model: PreTrainedModel, layers: str) -> "Packing":
        """Return the packing of a whole model whose list of layers has this name."""
        in_layers: list[tuple[int, int]] = []
        largest = 0
        for layer in model.get_submodule(layers).children():
            packed = [each for each in layer.parameters() if isinstance(each, PackedTensor)]
            nbytes = sum(part.nbytes for each in packed for part in each.form.tensors())
            in_layers.append((sum(each.numel() for each in packed), nbytes))
            matrices = (each.shape[-1] * each.shape[-2] for each in packed)
            largest = max(largest, *matrices, 0)
        plain = (each for each in model.parameters() if not isinstance(each, PackedTensor))
        return cls(tuple(in_layers), largest, max(each.numel() for each in plain))


@dataclass(frozen=True)
class ModelNames:
    """Names in a whole model.

    Attributes:
        tensors: of its parameters and persistent buffers.
        modules: of its modules; the model itself is "".
        decoder: the module that runs the layers.
        layers: the list of layers.
        prefix: the first part of a name, which a checkpoint may lack or have in excess.
    """

    tensors: frozenset[str]
    modules: frozenset[str]
    decoder: str
    layers: str
    prefix: str

    @classmethod
    def of(cls, model: PreTrainedModel, layers: str) -> "ModelNames":
        """Return the outline of a model whose list of layers has this name."""
        return cls(
            frozenset(model.state_dict()),
            frozenset(name for name, _ in model.named_modules()),
            layers.rpartition(".")[0],
            layers,
            model.base_model_prefix,
        )

    def has(self, name: str) -> bool:
        """Return whether the model has this tensor, with or without the prefix.

        The loader of a part of the model may leave the prefix as it was.
        """
        without = name.removeprefix(f"{self.prefix}.")
        return not self.tensors.isdisjoint((name, f"{self.prefix}.{name}", without))

    def needs(self, name: str, parameters_beside: bool) -> bool:
        """Return whether a tensor that the model does not have belongs to one of its parts.

        The model's output would be another without it. The name may lack the prefix.

        Args:
            parameters_beside: whether a parameter beside the layers counts that belongs to none of
                their modules.
        """
        return any(self._needs(each, parameters_beside) for each in (name, f"{self.prefix}.{name}"))

    def _needs(self, name: str, parameters_beside: bool) -> bool:
        parts = name.split(".")
        owner = ""
        rest = parts
        for end in range(len(parts) - 1, 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in self.modules:
                owner = prefix
                rest = parts[end:]
                break
        if owner.startswith(f"{self.layers}."):
            return True
        if owner == self.layers:  # a layer behind the last one: see `further_layers`
            return False
        if any(tensor.rpartition(".")[0] == owner for tensor in self.tensors if owner):
            return True
        if len(rest) == 1:
            return parameters_beside and owner in ("", self.decoder)
        path = ".".join((owner, rest[0]))
        return bool(NORM.fullmatch(rest[0])) and not OTHER_PARTS.search(path)


def check_fit(checkpoint: Checkpoint, anatomy: Anatomy) -> Packing | None:
    """Compare the names and shapes of a checkpoint's tensors with those of its model.

    Does nothing if the shapes are not known before the files are fetched; loading finds the same.

    Returns:
        What of the model stays packed; None if that is not known.

    Raises:
        UnsupportedModel: for the reasons of `check_report`.
    """
    stored = checkpoint.stored()
    if not stored:
        return None
    with _one_at_a_time:
        if checkpoint not in _fitting:
            model, report = _load_shapes(checkpoint, anatomy, stored)
            check_report(checkpoint, report, ModelNames.of(model, anatomy.layers))
            _fitting[checkpoint] = Packing.of(model, anatomy.layers)
        return _fitting[checkpoint]


def check_report(checkpoint: Checkpoint, report: Mapping[str, Any], outline: ModelNames) -> None:
    """Judge the report of transformers' loader.

    The report leaves out tensors that the model's class ignores itself.

    Raises:
        UnsupportedModel: if a tensor has another shape than in the model, if one is missing, or if
            one belongs to a part of the model that does not use it.
    """
    if report["mismatched_keys"]:
        raise _misshapen(checkpoint, *min(report["mismatched_keys"]))
    further = further_layers(checkpoint.tensor_names(), checkpoint.num_layers, outline)
    beside = checkpoint.wrapper is None
    left = _left_out(report["unexpected_keys"], outline, checkpoint.stored(), beside)
    if left_out := [*further, *sorted(left)]:
        raise _incomplete(checkpoint.name, left_out[0])
    if report["missing_keys"]:
        raise _lacking(checkpoint, sorted(report["missing_keys"]))


def check_draft(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Judge the report of transformers' loader on a draft model, which it has loaded whole.

    A quantized one is not judged: its tensors are those of a library.

    Raises:
        UnsupportedModel: if a tensor is missing, for which the loader has made random numbers, or
            if one belongs to a part of the model that does not use it. Such a model's guesses
            would be worth little.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return
    if missing := sorted(report["missing_keys"]):
        raise UnsupportedModel(name, _without_weights(missing))
    config = model.config.get_text_config(decoder=True)
    try:
        layers = find_layers(model, name, config)
    except UnsupportedModel:  # of another build than what is served; transformers knows it
        return
    outline = ModelNames.of(model, layers)
    unexpected = report["unexpected_keys"]
    names = (*unexpected, *outline.tensors)
    further = further_layers(names, int(config.num_hidden_layers), outline)
    if left_out := [*further, *sorted(_left_out(unexpected, outline, {}, config is model.config))]:
        raise _incomplete(name, left_out[0])


class _Shape:
    """A weight of which only the shape is known, with the interface of the loader."""

    def __init__(self, empty: torch.Tensor) -> None:
        self._empty = empty

    def __getitem__(self, index: object) -> "_Shape":
        return self

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self._empty.to(dtype=dtype)


def _load_shapes(
    checkpoint: Checkpoint, anatomy: Anatomy, stored: Mapping[str, Stored]
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Return the model on the meta device, and the loader's report on tensors of these shapes.

    Raises UnsupportedModel.
    """

    def finalize(model: PreTrainedModel, load_config: object, info: Any) -> Any:
        """Finish as the loader does, but make no missing tensors, which would take memory."""
        model.mark_tied_weights_as_initialized(info)
        model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
        model._adjust_missing_and_unexpected_keys(info)
        return info

    whole = anatomy.model_class
    members = {"_finalize_model_loading": staticmethod(finalize), "__module__": whole.__module__}
    # The same name, because transformers looks conversions up by it.
    on_meta = type(whole.__name__, (whole,), members)
    packed = checkpoint.packed()
    shapes = {
        name: _Shape(
            packed[name].empty(torch.float32)
            if name in packed
            else torch.empty(each.shape, device="meta")
        )
        for name, each in stored.items()
    }
    return load(checkpoint, on_meta, copy.deepcopy(checkpoint.model_config), shapes, torch.float32)


def load(
    checkpoint: Checkpoint,
    model_class: Any,
    config: PreTrainedConfig,
    tensors: Mapping[str, Any],
    dtype: torch.dtype,
    **quantizing: Any,
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Have transformers' loader bring tensors into a model; return it, and the loader's report.

    Args:
        model_class: of the model, as transformers knows it by its name.
        tensors: by their names in the checkpoint; the loader reads, moves and converts each.
        quantizing: further arguments of the loader.

    Raises:
        UnsupportedModel: if the loader cannot. Other misfits are in the report: see `check_report`.
        SwarmError: what reading a tensor raises.
    """
    with without_progress_bar(), explained(lambda why: unfit(checkpoint, why)):
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            attn_implementation=MODELS_OWN_ATTENTION,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_report` names them
            **quantizing,
        )
    return model, report


def unfit(checkpoint: Checkpoint, why: str) -> UnsupportedModel:
    """Return the error for weights that the loader cannot bring into the model."""
    return UnsupportedModel(checkpoint.name, f"its weights do not fit its configuration ({why})")


def _lacking(checkpoint: Checkpoint, missing: Sequence[str]) -> UnsupportedModel:
    """Return the error for a checkpoint that lacks these tensors."""
    if checkpoint.wrapper is not None:
        why = (
            f"its language model is a part of a {checkpoint.wrapper} model, whose weights have "
            "other names; give a checkpoint of the language model alone"
        )
        return UnsupportedModel(checkpoint.name, why)
    return UnsupportedModel(checkpoint.name, _without_weights(missing))


def _without_weights(missing: Sequence[str]) -> str:
    return f"its checkpoint lacks the weights of {', '.join(missing[:3])}"


def _incomplete(name: str, left_out: str) -> UnsupportedModel:
    """Return the error for a model whose configuration leaves out a part of the checkpoint."""
    why = f"its checkpoint holds {left_out}, which its {CONFIG_FILE} leaves out of the model"
    return UnsupportedModel(name, f"{why}: without it, the model would say something else")


def _misshapen(
    checkpoint: Checkpoint, name: str, stored: Sequence[int], expected: Sequence[int]
) -> UnsupportedModel:
    """Return the error for a tensor, named as in the model, of another shape than the model's."""
    names = checkpoint.tensor_names()
    own = next((each for each in names if name.endswith(each) or each.endswith(name)), None)
    where = name if own is None else f"{own} in {checkpoint.file_of(own)}"
    if own is None:  # it is made of several, such as one for each expert
        module = f"{name.rpartition('.')[0]}."
        first = next((each for each in names if module in each), None)
        if first is not None:
            where += f", made of {first} in {checkpoint.file_of(first)} and others,"
    shapes = f"has the shape {list(stored)}, and by {CONFIG_FILE} it is {list(expected)}"
    return unfit(checkpoint, f"{where} {shapes}")


def further_layers(names: Iterable[str], num_layers: int, outline: ModelNames) -> list[str]:
    """Return layers behind the last one that are layers like the others, by their names.

    Layers that predict further tokens (MTP) lie there, too, and have parts of their own:
    ``eh_proj``, ``enorm`` and ``hnorm`` in DeepSeek-V3 and GLM-4.5.

    Args:
        names: of the tensors of all layers.
        num_layers: how many layers the model has.
    """
    layers = re.escape(outline.layers.removeprefix(f"{outline.prefix}."))
    prefix = re.escape(outline.prefix)
    place = re.compile(rf"(?:{prefix}\.)?{layers}\.([0-9]{{1,{MAX_LAYER_DIGITS}}})\.(.+)")
    parts: dict[int, set[str]] = {}
    for name in names:
        if (found := place.fullmatch(name)) and not HARMLESS.search(name):
            parts.setdefault(int(found[1]), set()).add(found[2])
    usual = [tensors for number, tensors in parts.items() if number < num_layers]
    behind = [number for number, tensors in parts.items() if number >= num_layers]
    return [f"{outline.layers}.{number}" for number in sorted(behind) if parts[number] in usual]


def _left_out(
    unexpected: Iterable[str],
    outline: ModelNames,
    stored: Mapping[str, Stored],
    parameters_beside: bool,
) -> Iterator[str]:
    """Yield the unexpected tensors without which the model's output would be another.

    Args:
        stored: how tensors lie in their files, as far as it is known.
        parameters_beside: see `ModelNames.needs`.
    """
    for name in unexpected:
        if outline.has(name) or HARMLESS.search(name):
            continue
        tensor = stored.get(name)
        if tensor is not None and (tensor.dtype not in PLAIN_DTYPES or 0 in tensor.shape):
            continue  # not a parameter: these are floats; `study` finds other faults
        if MASK.search(name) and (tensor is None or len(tensor.shape) != 1):
            continue
        if outline.needs(name, parameters_beside):
            yield name


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """While open, transformers shows no progress bar."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
