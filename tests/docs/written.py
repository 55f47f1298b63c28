"""The files of the documentation that are generated from the code, in whole or in part."""

from pathlib import Path

from docs import supported, vectors

DOCS = Path(__file__).parents[2] / "docs"
VECTORS, ARCHITECTURES = DOCS / "protocol-vectors.json", DOCS / "architectures.md"


def written() -> dict[Path, str]:
    """Return what these files should contain."""
    return {
        VECTORS: vectors.text(vectors.vectors()),
        ARCHITECTURES: supported.with_table(ARCHITECTURES.read_text("utf-8")),
    }
