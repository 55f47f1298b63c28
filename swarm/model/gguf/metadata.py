"""The metadata of a GGUF file, read key by key, with types checked.

The keys of an architecture say how its model computes. So all of them have to be asked for: one
that was not understood may be one without which the model says something else.
"""

from collections.abc import Collection

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf.header import Header, Texts, Value

MAX_NUMBER = 1 << 48


class Metadata:
    """The metadata of one file.

    Attributes:
        architecture: llama.cpp's name for it. It is the first part of the keys of the model.
        tensors: the names of the file's tensors.
    """

    def __init__(self, model: str, file: str, header: Header) -> None:
        """``model`` and ``file`` are names for messages. Raises DamagedModel."""
        self.model = model
        self.file = file
        self.tensors = header.tensors
        self._values = header.metadata
        self._asked: set[str] = set()
        self.architecture = self.text("general.architecture")

    def own(self, key: str) -> str:
        """Return the full name of a key of the architecture."""
        return f"{self.architecture}.{key}"

    def has(self, key: str) -> bool:
        """Return whether the file has this key of the architecture."""
        return self.own(key) in self._values

    def size(self, key: str, default: int | None = None) -> int:
        """Return a positive integer of the architecture. Raises DamagedModel."""
        value = self._value(self.own(key), default)
        if isinstance(value, list) and value and len(set(value)) == 1:  # one for each layer, alike
            value = value[0]
        if type(value) is not int or not 0 < value <= MAX_NUMBER:
            raise self._unsound(self.own(key), value, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number of the architecture. Raises DamagedModel."""
        value = self._value(self.own(key), default)
        if type(value) not in (int, float) or not abs(float(value)) <= MAX_NUMBER:  # type: ignore[arg-type]
            raise self._unsound(self.own(key), value, "a number")
        return float(value)  # type: ignore[arg-type]

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a positive number of the architecture. Raises DamagedModel."""
        value = self.number(key, default)
        if value <= 0:
            raise self._unsound(self.own(key), value, "a positive number")
        return value

    def word(self, key: str, default: str) -> str:
        """Return a text of the architecture. Raises DamagedModel."""
        value = self._value(self.own(key), default)
        if not isinstance(value, str):
            raise self._unsound(self.own(key), value, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean; ``key`` is its full name. Raises DamagedModel."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._unsound(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; ``key`` is its full name. Raises DamagedModel."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._unsound(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return an array of texts; None without one, or for an empty one. Raises DamagedModel."""
        value = self._values.get(key)
        if value is None or value == []:
            return None
        if not isinstance(value, Texts):
            raise self._unsound(key, value, "an array of texts")
        try:
            return [each.decode() for each in value.encoded]
        except UnicodeDecodeError:
            raise DamagedModel(self.model, self.file, f"has a {key} that is not UTF-8") from None

    def numbers(self, key: str) -> list[int | float | bool] | None:
        """Return an array of numbers; None without one. Raises DamagedModel."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, list):
            raise self._unsound(key, value, "an array of numbers")
        return value

    def index(self, key: str, below: int) -> int | None:
        """Return an integer from 0 to ``below``; None without one. Raises DamagedModel."""
        value = self._values.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < below):
            raise self._unsound(key, value, f"a number below {below:,}")
        return value if isinstance(value, int) else None

    def check_understood(self, harmless: Collection[str]) -> None:
        """Raise UnsupportedModel if a key of the architecture was not asked for.

        Args:
            harmless: keys that change nothing here.
        """
        prefix = self.own("")
        own = {key.removeprefix(prefix) for key in self._values if key.startswith(prefix)}
        left = sorted(own - {key.removeprefix(prefix) for key in self._asked} - set(harmless))
        if left:
            why = f"its metadata says {prefix + left[0][:100]!r}, which we do not understand"
            why = f"{why}: without it, the model would say something else"
            raise UnsupportedModel(self.model, why)

    def _value(self, key: str, default: Value | None) -> Value:
        self._asked.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise DamagedModel(self.model, self.file, f"says no {key}")
        return value

    def _unsound(self, key: str, value: object, what: str) -> DamagedModel:
        shown = "an array of texts" if isinstance(value, Texts) else repr(value)[:50]
        why = f"says that {key} is {shown}, which is not {what}"
        return DamagedModel(self.model, self.file, why)
