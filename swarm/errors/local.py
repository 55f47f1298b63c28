"""A file, a key or this computer is unsuitable."""

from dataclasses import dataclass

from swarm.errors.bases import LocalError


@dataclass(eq=False)
class IdentityError(LocalError):
    """The key file or peer id `subject` cannot be used; `problem` says why and what to do."""

    subject: str
    problem: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}."


@dataclass(eq=False)
class CannotListen(LocalError):
    """An address of this computer is taken, or not ours; `option` names the option to change."""

    host: str
    port: int
    why: str
    option: str = "--port"

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}:{self.port} ({self.why}); give another {self.option}, or"
            " 0 for any"
        )


@dataclass(eq=False)
class ModelNotFound(LocalError):
    """There is no readable checkpoint of the name `model`."""

    model: str
    why: str = "it is neither a folder nor a model on the hub"

    def __str__(self) -> str:
        return (
            f"Model {self.model!r} was not found: {self.why}. Give a checkpoint folder, a GGUF"
            " file, or a Hugging Face model id."
        )


@dataclass(eq=False)
class DamagedModel(LocalError):
    """A file of the checkpoint `model` is damaged or missing; `why` says what is wrong with it."""

    model: str
    file: str
    why: str

    def __str__(self) -> str:
        return (
            f"Model {self.model!r} cannot be read: {self.file} {self.why}. Fetch or copy that file"
            " again."
        )


@dataclass(eq=False)
class UnsupportedModel(LocalError):
    """The checkpoint is there, but cannot be served layer by layer."""

    model: str
    why: str

    def __str__(self) -> str:
        return f"Model {self.model!r} is not supported: {self.why}. Choose another checkpoint."


@dataclass(eq=False)
class DraftMismatch(LocalError):
    """The draft model has another vocabulary than the target.

    Fields: `overlap` and `least` are shares of the smaller vocabulary: in both, and needed.
    """

    draft: str
    target: str
    overlap: float
    least: float

    def __str__(self) -> str:
        return (
            f"{self.draft} cannot draft for {self.target}: they share {self.overlap:.0%} of the"
            f" smaller vocabulary, and drafting needs {self.least:.0%}; give a draft model of the"
            " same family, or --draft none"
        )


@dataclass(eq=False)
class NoChatTemplate(LocalError):
    """The tokenizer of `model` does not say how its messages are written."""

    model: str

    def __str__(self) -> str:
        return (
            f"{self.model} has no chat template, which says how a model is talked to; "
            "choose one that was made for conversations, or let it continue plain text with --raw"
        )


@dataclass(eq=False)
class MissingExtra(LocalError):
    """A package that `what` needs is not installed; `instead` says how to do without."""

    what: str
    package: str
    extra: str
    instead: str

    def __str__(self) -> str:
        return (
            f"{self.what} need {self.package}: install it with `pip install swarm[{self.extra}]`,"
            f" or {self.instead}"
        )
