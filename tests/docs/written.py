"""The files of the documentation that are generated from the code, in whole or in part."""

from collections.abc import Collection
from pathlib import Path

from docs import supported, vectors
from docs.markdown import PAGES

DOCS = Path(__file__).parents[2] / "docs"
VECTORS, ARCHITECTURES = DOCS / "protocol-vectors.json", DOCS / "architectures.md"


def written(model_types: Collection[str] = ()) -> dict[Path, str]:
    """Return what these files should contain.

    Args:
        model_types: those whose architectures are tried, at half a second each; none for all.
    """
    page = ARCHITECTURES.read_text("utf-8")
    table = supported.with_rows(page, model_types)
    served = supported.count(table)
    pages = {each: supported.with_count(each.read_text("utf-8"), served) for each in PAGES}
    return {**pages, VECTORS: text_of_vectors(), ARCHITECTURES: table}


def text_of_vectors() -> str:
    return vectors.text(vectors.vectors())
