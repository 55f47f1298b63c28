"""A text that is known beforehand, and a draft's guesses at it that are right by chance.

The script says for each position which token stands there, whatever came before. So all ways of
decoding write the same text, and peers that know the script need no weights to predict it.
"""

import json
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from swarm.errors import DamagedModel

SCRIPT_FILE = "script.json"  # beside the weights of a model that has no real layers
FIRST_WORD = 2  # tokens before it are special, and in no script
MAX_SCRIPT_BYTES = 1 << 22
Table = Sequence[tuple[int, float]]  # of (positions in a batch, milliseconds)


@dataclass(frozen=True)
class Script:
    """What a model without real layers does.

    Attributes:
        tokens: that stand at the positions 0, 1, ... of every text, prompts apart.
        layer_ms, head_ms: the time of one layer, and of the LM head on a peer, by the positions of
            a batch.
    """

    tokens: tuple[int, ...]
    layer_ms: Table
    head_ms: Table

    @classmethod
    def of(
        cls, vocab_size: int, positions: int, layer_ms: Table, head_ms: Table, seed: int = 0
    ) -> "Script":
        """Draw a text."""
        draw = random.Random(seed)
        tokens = (draw.randrange(FIRST_WORD, vocab_size) for _ in range(positions))
        return cls(tuple(tokens), layer_ms, head_ms)

    def at(self, position: int) -> int:
        """Return the token at a position of a text; beyond the script it begins again."""
        return self.tokens[position % len(self.tokens)]

    def stage_ms(self, layers: int, positions: int) -> float:
        """Return the time that ``layers`` layers take for a batch of ``positions``."""
        return layers * between(self.layer_ms, positions)

    def save(self, folder: Path) -> None:
        (folder / SCRIPT_FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Script":
        """Read the script of a model's folder. Raises `DamagedModel`."""
        path = folder / SCRIPT_FILE
        try:
            if path.stat().st_size > MAX_SCRIPT_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text("utf-8"))
            tokens = tuple(map(int, content["tokens"]))
            layer_ms, head_ms = (
                tuple((int(positions), float(ms)) for positions, ms in content[name])
                for name in ("layer_ms", "head_ms")
            )
            if not tokens or not layer_ms or not head_ms:
                raise ValueError("it is empty")
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedModel(folder.name, SCRIPT_FILE, f"cannot be read ({error})") from None
        return cls(tokens, layer_ms, head_ms)


def between(table: Table, positions: int) -> float:
    """Return the time for ``positions``, on a straight line between two of the table's."""
    if len(table) == 1:
        return table[0][1]
    counts = [count for count, _ in table]
    at = min(max(bisect_left(counts, positions), 1), len(table) - 1)
    (few, few_ms), (many, many_ms) = table[at - 1], table[at]
    return few_ms + (many_ms - few_ms) * (positions - few) / (many - few)


@dataclass(frozen=True)
class Odds:
    """The chances of a draft's guesses.

    Attributes:
        alpha: that its first choice is right.
        second, third: that its second or third choice is right where the first one is not. Assumed,
            and cautious: in the demo's pair of models the two make up for 0.7 of the misses
            (docs/benchmarks.md).
    """

    alpha: float = 0.8
    second: float = 0.3
    third: float = 0.1

    @property
    def by_rank(self) -> tuple[float, ...]:
        """The chance of each choice, the first one first; at some positions none is right."""
        missed = 1.0 - self.alpha
        return self.alpha, missed * self.second, missed * self.third


@dataclass
class Guesser:
    """Guesses at a script, with the same luck at a position whatever is asked, and how often.

    Which text it is, the first token of its prompt says: texts have different luck.
    """

    script: Script
    odds: Odds
    vocab_size: int
    seed: int = 0
    _luck: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    def choices(self, text: Sequence[int], position: int) -> list[tuple[int, float]]:
        """Return a draft's choices for a position of a text, each with its confidence.

        Its confidence in a choice is the chance that such a choice is right, at every position
        alike. A real draft knows better where it is unsure.
        """
        right, chances = self.script.at(position), self.odds.by_rank
        luck = self._draw(text[0], position)
        choices = []
        for rank, chance in enumerate(chances):
            hit = 0.0 <= luck < chance
            luck -= chance
            choices.append((right if hit else self._other(right, rank + 1), chance))
        return choices

    def _draw(self, text: int, position: int) -> float:
        key = (text, position)
        if key not in self._luck:
            self._luck[key] = random.Random(f"{self.seed}:{text}:{position}").random()
        return self._luck[key]

    def _other(self, right: int, distance: int) -> int:
        """Return a word that is not the right one."""
        words = self.vocab_size - FIRST_WORD
        return FIRST_WORD + (right - FIRST_WORD + distance) % words


def prompt_of(vocab_size: int, number: int, length: int) -> list[int]:
    """Return the token ids of a prompt; ``number`` says which text it begins."""
    draw = random.Random(f"prompt {number}")
    return [draw.randrange(FIRST_WORD, vocab_size) for _ in range(length)]
