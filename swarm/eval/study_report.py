"""The tables of a study."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swarm.decoding.rules.adaptive import Adaptive
from swarm.decoding.rules.choose import Verification
from swarm.decoding.rules.lexicon import Lexicon
from swarm.eval.consequences import Beside, Chosen, Consequences, Estimate, Study, marks
from swarm.eval.study import MissFacts, StudiedText

# Of fewer probes no consequences are shown: resampling a handful of texts would feign certainty.
LEAST_PROBES = 10


@dataclass(frozen=True)
class StudyRow:
    """A group of misses.

    Attributes:
        beside: compared with another group; None if there is none to compare with.
    """

    name: str
    consequences: Consequences
    beside: Beside | None


@dataclass(frozen=True)
class StudyTable:
    """Groups of misses, and what they are compared with."""

    title: str
    rows: tuple[StudyRow, ...]


def study_tables(texts: Sequence[StudiedText], rules: Sequence[str]) -> list[StudyTable]:
    """Return the tables: by rule, by mark of the adaptive rule, and by kind of work.

    Args:
        rules: relaxed rules. The first adaptive one, or its defaults, says what is marked.
    """
    named = next((rule for rule in rules if rule.startswith("adaptive")), "adaptive")
    adaptive = adaptive_rule(named)
    study = Study(texts)
    tables = [
        StudyTable(
            "Misses that a rule lets pass, beside as many that cost least",
            tuple(_by_rule(study, rules)),
        ),
        StudyTable(
            f"Misses of at most {adaptive.tau:g} nats that {named} takes for key, beside those of "
            "the same cost that it does not",
            tuple(_by_mark(study, adaptive)),
        ),
    ]
    kinds = list(dict.fromkeys(text.kind for text in texts))
    if len(kinds) > 1:
        rows = tuple(_by_kind(texts, kinds, adaptive))
        tables.append(StudyTable("The same, marked by anything, by kind of work", rows))
    return tables


def adaptive_rule(text: str) -> Adaptive:
    """Return an adaptive rule with the settings of ``NAME:KEY=NUMBER,...``."""
    return Adaptive(Lexicon(lambda _: ""), **Verification.parse(text).settings)


def _by_rule(study: Study, rules: Sequence[str]) -> Iterator[StudyRow]:
    yield StudyRow("all misses", study.consequences(lambda _: True), None)
    for rule in rules:
        passes = _passed_by(rule)
        cheapest = study.cheapest(study.count(passes))
        beside = study.beside(passes, cheapest, at_equal_cost=False)
        yield StudyRow(rule, study.consequences(passes), beside)


def _passed_by(rule: str) -> Chosen:
    """Return a choice of the misses that a rule would let pass at the beginning of a text."""
    if not rule.startswith("adaptive"):
        return lambda miss: miss.passes[rule]
    adaptive = adaptive_rule(rule)
    most = min(adaptive.tau, adaptive.budget)
    return lambda miss: miss.deficit_nats <= most and not marks(miss, adaptive)


def _by_mark(study: Study, rule: Adaptive) -> Iterator[StudyRow]:
    def cheap(chosen: Chosen) -> Chosen:
        return lambda miss: miss.deficit_nats <= rule.tau and chosen(miss)

    unmarked = cheap(lambda miss: not marks(miss, rule))
    yield StudyRow("not key", study.consequences(unmarked), None)
    found = {mark for text in study.texts for miss in text.misses for mark in marks(miss, rule)}
    groups: dict[str, Chosen] = {
        "key by anything": lambda miss: bool(marks(miss, rule)),
        "key by a class": lambda miss: bool(miss.classes),
        "key by a class alone": lambda miss: bool(miss.classes) and not _signals(miss, rule),
        "key by a signal": lambda miss: bool(_signals(miss, rule)),
        "key by a signal alone": lambda miss: bool(_signals(miss, rule)) and not miss.classes,
    }
    for mark in sorted(found):
        groups[mark] = _marked(mark, rule)
    for name, chosen in groups.items():
        marked = cheap(chosen)
        beside = study.beside(marked, unmarked, at_equal_cost=True)
        yield StudyRow(name, study.consequences(marked), beside)


def _signals(miss: MissFacts, rule: Adaptive) -> list[str]:
    return marks(miss, rule)[len(miss.classes) :]


def _marked(mark: str, rule: Adaptive) -> Chosen:
    return lambda miss: mark in marks(miss, rule)


def _by_kind(
    texts: Sequence[StudiedText], kinds: Sequence[str], rule: Adaptive
) -> Iterator[StudyRow]:
    for kind in kinds:
        study = Study([text for text in texts if text.kind == kind])
        for row in _by_mark(study, rule):
            if row.name in ("not key", "key by anything"):
                yield StudyRow(f"{kind}: {row.name}", row.consequences, row.beside)


COLUMNS = (
    "",
    "in 100",
    "nats",
    "probes",
    "rest alike",
    "beside, 95 %",
    "log p of the rest",
    "beside, 95 %",
    "answers lost",
    "beside, 95 %",
)


def study_markdown(tables: Sequence[StudyTable]) -> str:
    """Return the tables for a document, or for a terminal."""
    blocks = []
    for table in tables:
        checked = any(
            row.consequences.lost.value == row.consequences.lost.value for row in table.rows
        )
        lines = [list(COLUMNS), ["---", *["---:"] * (len(COLUMNS) - 1)]]
        lines += [_cells(row) for row in table.rows]
        shown = [line if checked else line[:-2] for line in lines]
        rows = "\n".join("| " + " | ".join(line) + " |" for line in shown)
        blocks.append(f"{table.title}:\n\n{rows}")
    return "\n\n".join(blocks)


def study_facts(tables: Sequence[StudyTable]) -> list[dict[str, Any]]:
    """Return the tables as plain data for JSON."""
    return [asdict(table) for table in tables]


def _cells(row: StudyRow) -> list[str]:
    of = row.consequences
    beside = row.beside or Beside()
    counts = [row.name, _shown(of.per_100, "{:.1f}"), _shown(of.nats, "{:.2f}"), str(of.probes)]
    if of.probes < LEAST_PROBES:
        return [*counts, *["-"] * (len(COLUMNS) - len(counts))]
    return [
        *counts,
        _shown(of.alike, "{:.1%}"),
        _shown(beside.alike, "{:+.1%}", interval=True),
        _shown(of.log_p, "{:+.3f}"),
        _shown(beside.log_p, "{:+.3f}", interval=True),
        _shown(of.lost, "{:+.1f}"),
        _shown(beside.lost, "{:+.1f}", interval=True),
    ]


def _shown(estimate: Estimate | None, form: str, *, interval: bool = False) -> str:
    if estimate is None or estimate.value != estimate.value:
        return "-"
    value = form.format(estimate.value)
    low, high = (form.format(end) for end in estimate.interval)
    return f"{value} ({low} to {high})" if interval else value
