"""The table of docs/architectures.md: one row for each model type that transformers knows.

`tests/model/test_every_architecture.py` holds it to what is served.
"""

import re
from collections.abc import Collection

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from docs.families import FAMILIES, REFUSALS
from helpers.all_types import CASES, Case
from helpers.sweep import Outcome, serve

BEGIN, END = "<!-- written by `python -m tests.docs` -->\n", "<!-- up to here -->\n"
NAMES = (
    "`model_type`",
    "class",
    "published models",
    "variant",
    "served",
    "sessions in one forward",
    "branches",
)
FACTS = re.compile(r"( \([^()]*(\([^()]*\)[^()]*)*\))+$")  # of this run, behind a reason


def with_rows(page: str, model_types: Collection[str] = ()) -> str:
    """Return the page with rows as these model types are served; none for all types.

    Raises:
        AssertionError: if one is served wrong.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"the page has no {BEGIN!r}"
    assert end, f"the page has no {END!r}"
    known = rows_of(page)
    head = f"| {' | '.join(NAMES)} |\n{'|---' * len(NAMES)}|\n"
    rows = [
        known[name]
        if model_types and case.model_type not in model_types and name in known
        else row(case, serve(case))
        for name, case in CASES.items()
    ]
    return before + begin + head + "".join(rows) + end + after


def row(case: Case, outcome: Outcome) -> str:
    """Return the row of a model type that is served so."""
    why = FACTS.sub("", outcome.why)
    if not outcome.served:
        why = REFUSALS.get(case.model_type, why)
    together = "many" if outcome.packs else f"one after another: {why}"
    cells = (
        f"`{case.model_type}`",
        f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[case.model_type]}`",
        FAMILIES.get(case.model_type, ""),
        case.variant,
        "yes" if outcome.served else f"no: {why}",
        together if outcome.served else "",
        ("yes" if outcome.branches else "no") if outcome.served else "",
    )
    return f"| {' | '.join(cells)} |\n"


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of a page's table by the names of their cases."""
    found = {}
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines(keepends=True)[2:]:
        model_type, _, _, variant = (cell.strip(" `") for cell in line.split("|")[1:5])
        found[f"{model_type} {variant}".strip()] = line
    return found


SAID = re.compile(r"(\d+)(?=\s+(?:Hugging\s+Face\s+)?(?:decoder\s+)?architectures)")


def with_count(page: str, served: int) -> str:
    """Return a page that says how many architectures are served."""
    return SAID.sub(str(served), page)


def count(page: str) -> int:
    """Return the number of model types in the table of a page that are served."""
    return len(set(re.findall(r"^\| `([\w.-]+)` \|.*\| yes \|", page, re.MULTILINE)))
