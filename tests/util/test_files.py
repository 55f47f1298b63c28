"""Files are there whole or as they were before."""

from pathlib import Path

import pytest

from swarm.util.files import UNFINISHED, remove_unfinished, whole_file, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    write_whole(file, "one")
    with whole_file(file) as unfinished:
        unfinished.write_text("tw")
        assert file.read_text() == "one"
        unfinished.write_text("two")
    assert file.read_text() == "two"
    assert list(file.parent.iterdir()) == [file]


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "one")
    with pytest.raises(ZeroDivisionError), whole_file(file) as unfinished:
        unfinished.write_text(str(1 // 0))
    assert file.read_text() == "one"
    assert list(tmp_path.glob("file*")) == [file]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    (tmp_path / f"file123{UNFINISHED}").write_text("tw")
    remove_unfinished(tmp_path)
    assert list(tmp_path.glob("file*")) == [file]
