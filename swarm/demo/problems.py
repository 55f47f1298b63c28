"""Arithmetic word problems with worked solutions: the world that the demo models know.

A problem is about one person and one kind of thing. Its solution has one sentence per calculation
and ends in ``#### answer``. The *numbers* of a solution are forced; the *wording* is free: every
sentence is put together from slots with several right fillings. So a target and a draft model agree
on easy tokens, may disagree on which of two good words comes next, and must not disagree on a
digit. Key-token verification is made for this mixture.

Whether a problem is held out depends on its text alone, so that no seed can leak one into training.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

HELD_OUT_SHARE = 32  # one problem in 32 is held out
MAX_SUM = 5_000  # dollars at the end
MAX_GROWN = 1_200  # things after a multiplication

WOMEN = (
    "Mia",
    "Anna",
    "Zoe",
    "Lena",
    "Ruth",
    "Nora",
    "Ivy",
    "Rosa",
    "Emma",
    "Clara",
    "Dana",
    "Fay",
)
MEN = ("Tom", "Ben", "Omar", "Luis", "Karl", "Ivan", "Sam", "Hugo", "Amir", "Paul", "Noah", "Max")
PEOPLE = {**dict.fromkeys(WOMEN, "she"), **dict.fromkeys(MEN, "he")}
THINGS = (
    "stamps",
    "coins",
    "shells",
    "marbles",
    "cards",
    "books",
    "stickers",
    "beads",
    "seeds",
    "pencils",
    "apples",
    "eggs",
    "roses",
    "bricks",
    "tickets",
    "buttons",
    "stones",
    "letters",
    "photos",
    "candles",
)
PACKS = ("boxes", "bags", "packs", "crates", "baskets", "jars")
PLACES = ("shop", "market", "school", "harbor", "station", "garden")


@dataclass(frozen=True)
class WordProblem:
    """One word problem. ``solution`` ends in ``#### `` and ``answer``."""

    question: str
    solution: str
    answer: int

    @property
    def prompt(self) -> str:
        """The text that a model continues."""
        return f"Problem: {self.question}\nSolution:"

    @property
    def text(self) -> str:
        """Prompt and solution, for training."""
        return f"{self.prompt} {self.solution}"

    @property
    def held_out(self) -> bool:
        digest = hashlib.sha256(self.question.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def problems(seed: int, *, held_out: bool) -> Iterator[WordProblem]:
    """Yield training (``held_out=False``) or held-out problems without end."""
    rng = random.Random(f"problems/{seed}")
    while True:
        problem = _Story(rng).tell()
        if problem.held_out == held_out:
            yield problem


def drills(seed: int, equations: int = 8) -> Iterator[str]:
    """Yield texts of ``equations`` bare calculations, of the kinds in the problems, without end."""
    rng = random.Random(f"drills/{seed}")
    while True:
        yield "Drill: " + "; ".join(_drill(rng) for _ in range(equations))


def answer_of(text: str) -> int | None:
    """Return the number behind the last ``####`` of a worked solution, or None without one."""
    _, marker, tail = text.rpartition("####")
    number = tail.strip().split("\n")[0].replace(",", "")
    return int(number) if marker and number.isascii() and number.isdigit() else None


def _drill(rng: random.Random) -> str:
    kind = rng.choice("++--*/")
    if kind == "+":
        a, b = rng.randint(10, 699), rng.randint(10, 399)
        return f"{a} + {b} = {a + b}"
    if kind == "-":
        a = rng.randint(30, 999)
        b = rng.randint(10, min(a - 1, 399))
        return f"{a} - {b} = {a - b}"
    a, k = rng.choice([rng.randint(11, 49), rng.randint(50, 599)]), rng.randint(2, 9)
    return f"{k} * {a} = {k * a}" if kind == "*" else f"{a * k} / {k} = {a}"


@cache
def _weights(person: str, slot: str, options: int) -> tuple[float, ...]:
    """Return how often a person's stories use each filling of a slot: each has a slight style."""
    rng = random.Random(f"manner/{person}/{slot}")
    return tuple(rng.uniform(1.0, 2.0) for _ in range(options))


class _Story:
    """A problem in the making: its state, and the sentences of question and solution so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.person = rng.choice(list(PEOPLE))
        self.pronoun = PEOPLE[self.person]
        self.thing = rng.choice(THINGS)
        self.quantity = rng.randint(40, 400)
        self.question: list[str] = []
        self.calculations: list[tuple[str, str]] = []  # (what it is for, equation with its result)

    def tell(self) -> WordProblem:
        self._open()
        steps = self.rng.randint(2, 3)
        for _ in range(steps):
            self._step()
        unit = self._ask()
        sentences = [self._sentence(i, *c) for i, c in enumerate(self.calculations)]
        closing = self._say(
            "closing",
            f"So the answer is {self.quantity}.",
            f"That leaves {self.quantity} {unit}.",
            f"The total is {self.quantity} {unit}.",
            f"So {self.person} ends up with {self.quantity} {unit}.",
            f"This means the result is {self.quantity}.",
        )
        return WordProblem(
            question=" ".join(self.question),
            solution=" ".join([*sentences, closing]) + f"\n#### {self.quantity}",
            answer=self.quantity,
        )

    # The question: its wording is free, and no model has to predict it.

    def _open(self) -> None:
        p, t, q = self.person, self.thing, self.quantity
        self._tell(
            f"{p} has {q} {t}.",
            f"{p} owns {q} {t}.",
            f"{p} starts with {q} {t}.",
            f"There are {q} {t} in the room of {p}.",
            f"{p} keeps {q} {t} at home.",
        )

    def _step(self) -> None:
        steps = [self._gain, self._gain_packs]
        if self.quantity > 60:
            steps += [self._lose, self._lose_packs]
        if self.quantity * 2 <= MAX_GROWN:
            steps.append(self._grow)
        if self._divisors():
            steps += [self._share, self._share]
        self.rng.choice(steps)()

    def _ask(self) -> str:
        """Ask for the answer, in things or in money; return its unit."""
        p, t = self.person, self.thing
        prices = [c for c in range(2, 10) if self.quantity * c <= MAX_SUM]
        if prices and self.rng.random() < 0.3:
            price = self.rng.choice(prices)
            self._tell(
                f"{p} sells all of them for {price} dollars each.",
                f"Each one is sold for {price} dollars.",
            )
            self._tell(f"How much money does {p} get?", "How many dollars is that?")
            self._calculate("sell", f"{price} * {self.quantity}", self.quantity * price)
            return "dollars"
        self._tell(
            f"How many {t} does {p} have now?",
            f"How many {t} does {p} have in the end?",
            f"How many {t} are left for {p}?",
        )
        return t

    def _gain(self) -> None:
        n = self.rng.randint(12, 250)
        place = self.rng.choice(PLACES)
        self._tell(
            f"At the {place}, {self.pronoun} buys {n} more.",
            f"A friend brings {n} more {self.thing}.",
            f"Then {self.pronoun} finds {n} {self.thing} at the {place}.",
            f"Later {n} more arrive from the {place}.",
        )
        self._calculate("gain", f"{self.quantity} + {n}", self.quantity + n)

    def _lose(self) -> None:
        n = self.rng.randint(12, min(self.quantity - 12, 250))
        place = self.rng.choice(PLACES)
        self._tell(
            f"On the way to the {place}, {self.pronoun} loses {n} of them.",
            f"A friend takes {n} {self.thing} away.",
            f"Then {self.pronoun} gives {n} to the {place}.",
            f"Later {n} of the {self.thing} are broken.",
        )
        self._calculate("lose", f"{self.quantity} - {n}", self.quantity - n)

    def _gain_packs(self) -> None:
        k, m = self.rng.randint(2, 9), self.rng.randint(11, 49)
        pack = self.rng.choice(PACKS)
        self._tell(
            f"Then {k} {pack} with {m} {self.thing} each are delivered.",
            f"In the cellar {self.pronoun} discovers {k} {pack} of {m} {self.thing}.",
            f"{self.person} receives {k} {pack}, each holding {m}.",
        )
        self._calculate("packs", f"{k} * {m}", k * m, keep=True)
        self._calculate("gain", f"{self.quantity} + {k * m}", self.quantity + k * m)

    def _lose_packs(self) -> None:
        k, m = self.rng.randint(2, 9), self.rng.randint(11, 99)
        if k * m >= self.quantity:
            return self._gain_packs()
        pack = self.rng.choice(PACKS)
        self._tell(
            f"{self.person} fills {k} {pack} with {m} {self.thing} each and sends them off.",
            f"Then {k} {pack} holding {m} {self.thing} each are sold.",
            f"A neighbor carries away {k} {pack} of {m}.",
        )
        self._calculate("packs", f"{k} * {m}", k * m, keep=True)
        self._calculate("lose", f"{self.quantity} - {k * m}", self.quantity - k * m)

    def _grow(self) -> None:
        k = self.rng.randint(2, min(9, MAX_GROWN // self.quantity))
        self._tell(
            f"By summer there are {k} times as many.",
            f"A year later {self.pronoun} has {k} times that number.",
            f"The collection becomes {k} times as large.",
        )
        self._calculate("grow", f"{k} * {self.quantity}", self.quantity * k)

    def _share(self) -> None:
        k = self.rng.choice(self._divisors())
        self._tell(
            f"They are shared equally among {k} children, and {self.person} takes one share.",
            f"{self.person} splits them into {k} equal parts and keeps one.",
            f"After a division into {k} equal heaps, {self.pronoun} keeps a single heap.",
        )
        self._calculate("share", f"{self.quantity} / {k}", self.quantity // k)

    def _divisors(self) -> list[int]:
        return [k for k in range(2, 10) if self.quantity % k == 0 and self.quantity // k >= 12]

    # The solution: forced numbers in free wording.

    def _calculate(self, purpose: str, expression: str, result: int, *, keep: bool = False) -> None:
        self.calculations.append((purpose, f"{expression} = {result}"))
        if not keep:
            self.quantity = result

    def _sentence(self, index: int, purpose: str, equation: str) -> str:
        openers: tuple[str, ...] = ("Then", "Next", "After that", "Now", "Later")
        if index == 0:
            openers = ("First", "To begin", "To start", "At first")
        who = self._say(f"who{index}", self.person, self.pronoun, "we")
        verb = self._say(purpose, *_DOES[purpose])
        if who == "we":
            verb = _plural(verb)
        glue = self._say(
            "glue" + purpose,
            "so that is",
            "which makes",
            "which gives",
            "and this is",
            "giving",
            "so we get",
        )
        unit = self.thing if purpose != "sell" else "dollars"
        tail = self._say("tail" + purpose, "", f" {unit}", " in total", " altogether")
        opener = self._say(f"opener{min(index, 1)}", *openers)
        return f"{opener}, {who} {verb}, {glue} {equation}{tail}."

    def _tell(self, *options: str) -> None:
        self.question.append(self.rng.choice(options))

    def _say(self, slot: str, *options: str) -> str:
        return self.rng.choices(options, _weights(self.person, slot, len(options)))[0]


_DOES = {
    "gain": (
        "adds the new ones",
        "counts the new ones too",
        "includes what came",
        "puts them together",
        "takes the sum",
    ),
    "lose": (
        "removes the lost ones",
        "takes those away",
        "subtracts what is gone",
        "counts only the rest",
        "drops them",
    ),
    "packs": (
        "counts all the packs",
        "multiplies the packs",
        "works out the packs",
        "finds what they hold",
        "looks at the packs",
    ),
    "grow": (
        "multiplies the number",
        "scales it up",
        "takes it several times",
        "counts the growth",
        "works out the growth",
    ),
    "share": (
        "divides them evenly",
        "finds one share",
        "splits them evenly",
        "takes a single part",
        "works out one part",
    ),
    "sell": (
        "multiplies by the price",
        "counts the money",
        "works out the money",
        "finds the price of all",
        "sells everything",
    ),
}


def _plural(phrase: str) -> str:
    """Return the form of a phrase behind "we": "multiply the packs" for "multiplies the packs"."""
    verb, *rest = phrase.split(" ")
    return " ".join([verb[:-3] + "y" if verb.endswith("ies") else verb[:-1], *rest])
