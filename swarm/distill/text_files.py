"""Earlier texts of the target, out of a folder."""

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from swarm.client.prompt import encoded
from swarm.distill.texts import WrittenText
from swarm.errors import ConfigError
from swarm.util.json_lines import MAX_BYTES, UnreadableData, read_json_lines


def read_texts(
    folder: Path, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Iterator[WrittenText]:
    """Yield the texts of a folder in the order of its files' names.

    A file ``*.txt`` is a text. A line of a file ``*.jsonl`` is an object with ``text``, and perhaps
    ``prompt``, which the target was given before it.

    Args:
        longest: tokens of a text; of a longer one, the first ones are taken.

    Raises:
        ConfigError: if there is no such folder, or no text in it.
        UnreadableData: for a file that is no text.
    """
    if not folder.is_dir():
        raise ConfigError("texts", f"{folder} is no folder; give one with .txt or .jsonl files")
    found = False
    for file in sorted(folder.iterdir()):
        for prompt, text in _texts(file):
            tokens = encoded(tokenizer, prompt + text)
            given = len(encoded(tokenizer, prompt)) if prompt else 0
            found = True
            yield WrittenText(tuple(tokens[:longest]), min(given, longest))
    if not found:
        raise ConfigError("texts", f"{folder} holds no texts, in files *.txt or *.jsonl")


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """Yield prompt and text of each text in a file; nothing of a file of another kind."""
    if file.suffix == ".txt" and file.is_file():
        if file.stat().st_size > MAX_BYTES:
            raise UnreadableData(file, f"is larger than {MAX_BYTES >> 20} MB")
        yield "", file.read_text("utf-8", errors="replace")
    elif file.suffix == ".jsonl" and file.is_file():
        for number, entry in read_json_lines(file):
            prompt = entry.get("prompt", "")
            text = entry.get("text")
            if not isinstance(text, str) or not isinstance(prompt, str):
                raise UnreadableData(file, "has no text 'text', or a 'prompt' that is none", number)
            yield prompt, text
