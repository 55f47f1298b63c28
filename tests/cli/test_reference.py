"""docs/cli.md is up to date with the commands."""

from helpers.cli_reference import BLOCK, DOCUMENT, written

HOW = "run `python tests/helpers/cli_reference.py`"


def test_the_document_is_up_to_date() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert {block["name"] for block in BLOCK.finditer(document)} == {
        "swarm",
        "swarm-peer",
        "network",
        "exit codes",
    }
    assert written(document) == document, HOW
