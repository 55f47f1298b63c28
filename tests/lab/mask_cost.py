"""What a constrained answer costs the client at each place, by the size of the vocabulary.

Prints a table; nothing is asserted.

    python tests/lab/mask_cost.py [TOKENIZER FOLDER ...]

Without folders, the tokenizers have words of random letters: as many as Llama 2, Llama 3 and Qwen
3 have. A text follows a schema, its tokens drawn from those that the mask allows; each place is
masked once for the target and once for a draft that goes another way, as in a stream. All of it on
one thread, as a client that drafts and judges side by side.
"""

import json
import random
import sys
import time
from itertools import islice
from statistics import mean

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from swarm.client.grammar import GrammarMask, Grammars
from swarm.decoding.constraint import Constraint
from swarm.decoding.mask import put_out

VOCABULARIES = (32_000, 128_256, 151_936)
PLACES = 200
LOOP_MS = 100.0
END = "<|end|>"
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 200},
        "kind": {"enum": ["invoice", "letter", "receipt"]},
        "lines": {
            "type": "array",
            "minItems": 5,
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "pattern": "^[A-Za-z ,]{1,60}$"},
                    "amount": {"type": "number"},
                    "date": {"type": "string", "format": "date"},
                },
                "required": ["text", "amount", "date"],
            },
        },
    },
    "required": ["title", "kind", "lines"],
}


def made_up(size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of this many tokens: bytes, and words of random letters."""
    chance = random.Random(0)
    words = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    while len(words) < size - 1:
        letters = "".join(chance.choices("etaoinshrdlucmfwypvbgkqjxz", k=chance.randint(2, 9)))
        words[chance.choice(("Ġ", "", "")) + letters] = None
    vocabulary = {word: number for number, word in enumerate([*words, END])}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def written(mask: GrammarMask, vocabulary: int) -> tuple[list[float], list[float]]:
    """Follow the schema; return the milliseconds of each mask, and of setting the logits by it."""
    chance = random.Random(1)
    logits = torch.randn(vocabulary)
    answer: list[int] = []
    masks: list[float] = []
    settings: list[float] = []
    while len(masks) < PLACES and not (answer and mask.ends(answer)):
        started = time.perf_counter()
        banned = mask.banned(answer)
        computed = time.perf_counter()
        assert banned is not None
        put_out(logits.clone(), banned)
        masks.append((computed - started) * 1e3)
        settings.append((time.perf_counter() - computed) * 1e3)
        allowed = (~banned).nonzero()[:, 0]
        following = chance.choices(allowed.tolist(), k=2)
        started = time.perf_counter()
        mask.banned([*answer, following[1]])
        masks.append((time.perf_counter() - started) * 1e3)
        answer.append(following[0])
    return masks, settings


def measure(name: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
    ends = frozenset({int(tokenizer.eos_token_id)})
    grammars = Grammars(tokenizer, vocabulary)
    started = time.perf_counter()
    mask = grammars.mask(Constraint("json_schema", json.dumps(SCHEMA)), ends)
    first_ms = (time.perf_counter() - started) * 1e3
    masks, settings = written(mask, vocabulary)
    both = mean(masks) + mean(settings)
    print(
        f"{name:24} {vocabulary:8,} {first_ms:10.0f} {mean(masks):9.3f} {max(masks):9.2f}"
        f" {mean(settings):9.3f} {both / LOOP_MS:8.2%}"
    )


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"{'':24} {'tokens':>8} {'first ms':>10} {'mask ms':>9} {'most ms':>9} {'set ms':>9}",
        end="",
    )
    print(f" {'of 100 ms':>9}")
    for folder in sys.argv[1:]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        measure(folder.rstrip("/").rpartition("/")[2][:24], tokenizer, len(tokenizer))
    for size in islice(VOCABULARIES, 0 if len(sys.argv) > 1 else None):
        measure("random words", made_up(size), size)


if __name__ == "__main__":
    main()
