"""Reading a tokenizer, or refusing it with a sentence that names its file."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from swarm.errors import DamagedModel
from swarm.model.edge import explained
from swarm.model.folder import read_json

FILE = "tokenizer.json"
JSON_FILES = (FILE, "tokenizer_config.json", "special_tokens_map.json")


def read_tokenizer(model: str, where: str, **options: Any) -> PreTrainedTokenizerBase:
    """Read the tokenizer in a folder or of a hub id; ``options`` are transformers' own.

    Raises:
        DamagedModel: if it is damaged or missing, or has no vocabulary.
    """
    folder = Path(where)
    for file in JSON_FILES:
        if (folder / file).is_file():
            read_json(model, folder / file)
    with explained(lambda why: DamagedModel(model, FILE, f"gives no tokenizer ({why})")):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **options
        )
        ordinary = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if not ordinary:  # transformers returns such a one for a folder without a tokenizer
        raise DamagedModel(model, FILE, "is missing, or has no vocabulary")
    return tokenizer
