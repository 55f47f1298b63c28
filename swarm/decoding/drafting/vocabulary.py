"""Between the tokens of a draft model and those of the target."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

BYTE_SPACE = "\u0120"  # what a byte-level vocabulary writes for a space (GPT-2's)
PIECE_SPACE = "\u2581"  # what a sentencepiece vocabulary writes for one
BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # a sentencepiece token that stands for one byte
# of the tokens must be so spelled: models add a few that are not, other vocabularies have few
BYTE_LEVEL_SHARE = 0.9


class Vocabulary(Protocol):
    """How the tokens of a draft model and those of the target stand for each other.

    Immutable: any thread may ask.
    """

    @property
    def opening(self) -> tuple[int, ...]:
        """The draft's tokens that stand before every text."""
        ...

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """Tokens of the target in those of the draft.

        Each for itself, so that a prefix's encoding is a prefix.
        """
        ...

    def project(self, logits: Tensor) -> Tensor:
        """``[n, draft head]`` to ``[n, target vocabulary]``; -inf for what the draft cannot say.

        What it can say is one token of the draft: `encode` gives that one back.
        """
        ...


@dataclass(frozen=True)
class SameVocabulary:
    """Draft and target share their tokens; only the padding of their heads may differ.

    Args:
        size: of the target's vocabulary, its own padding included.
    """

    size: int
    opening: tuple[int, ...] = ()  # the target's own is in the sequence

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """See `Vocabulary.encode`."""
        return list(tokens)

    def project(self, logits: Tensor) -> Tensor:
        """See `Vocabulary.project`."""
        return _fit(logits, self.size)


class Translation:
    """Draft and target have different vocabularies; the draft says what is in both.

    Its distribution is cut to the tokens that both have (Timor et al. 2025, "Accelerating LLM
    Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies",
    token-level intersection), and what it reads is spelled in its own. Both can only cost speed:
    what is drafted and judged are tokens of the target.

    - Ordinary tokens are the same if they stand for the same bytes, however the two vocabularies
      write them.
    - Special tokens are the same if they are special in both and written alike. If no token of the
      draft is the target's end of text in this way, then the draft's own end is, so that a draft
      can say "end".
    - Other tokens of the target are read as the fewest tokens of the draft that make up the same
      bytes. What cannot be spelled (specials of the target; bytes that the draft does not know) the
      draft does not see.
    - A draft that opens its texts with a token of its own reads that one instead of the target's.

    Attributes:
        coverage: share of the target's ordinary vocabulary that the draft can say.
        overlap: share of the smaller ordinary vocabulary that is in both.
    """

    def __init__(
        self, draft: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, size: int
    ) -> None:
        """``size``: of the target's vocabulary, its padding included."""
        self._draft, self._target, self._size = _Tokens.of(draft), _Tokens.of(target), size
        shared = _shared(self._target, self._draft)
        self.coverage = len(shared) / max(1, len(self._target.ids))
        self.overlap = len(shared) / max(1, min(len(self._target.ids), len(self._draft.ids)))
        self.opening = self._draft.opening
        pairs = shared | _shared_specials(self._target, self._draft)
        # A tokenizer may have tokens that its model has no row for: the target's go here, the
        # draft's in `project`.
        self._pairs = {token: own for token, own in pairs.items() if token < size}
        self._target_ids = torch.tensor(list(self._pairs), dtype=torch.long)
        self._draft_ids = torch.tensor(list(self._pairs.values()), dtype=torch.long)
        self._spelled = cache(self._spell)  # at most one entry for each token of the target

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """See `Vocabulary.encode`."""
        return list(chain.from_iterable(map(self._spelled, tokens)))

    def project(self, logits: Tensor) -> Tensor:
        """See `Vocabulary.project`."""
        said = _fit(logits, max(self._pairs.values()) + 1)
        projected = said.new_full((said.shape[0], self._size), -torch.inf)
        projected[:, self._target_ids] = said[:, self._draft_ids]
        return projected

    def _spell(self, token: int) -> tuple[int, ...]:
        """One token of the target in those of the draft."""
        if token in self._pairs:
            return (self._pairs[token],)
        if self._draft.words or token not in self._target.spellings:
            return ()
        return _fewest(self._target.spellings[token], self._draft.ids)


@dataclass(frozen=True)
class _Tokens:
    """What the tokens of one tokenizer stand for.

    Args:
        spellings: bytes of every ordinary token; of two with the same bytes, the one that is used
            comes first.
        words: the tokens are whole words, or parts of them, that do not say what is between them.
        opening: tokens before every text.
    """

    spellings: dict[int, bytes]
    specials: dict[str, int]
    words: bool
    opening: tuple[int, ...]
    bos: int | None
    eos: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "_Tokens":
        added = tokenizer.added_tokens_decoder
        special_ids = {
            *tokenizer.all_special_ids,
            *(i for i, token in added.items() if token.special),
        }
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        learned = {i: token for token, i in vocabulary if i not in added and i not in special_ids}
        literal = {i: added[i].content.encode() for i in sorted(added) if i not in special_ids}
        spell = _convention(learned.values())
        # A character's own token comes before the token of its byte, which is the last resort of
        # the tokenizer.
        ordered = sorted(
            learned, key=lambda i: (spell is _piece and bool(BYTE_PIECE.fullmatch(learned[i])), i)
        )
        bos = tokenizer.bos_token_id
        return cls(
            spellings={i: spell(learned[i]) for i in ordered} | literal,
            specials={token: i for token, i in vocabulary if i in special_ids},
            words=spell is str.encode,
            opening=(bos,) if bos is not None and tokenizer.encode("")[:1] == [bos] else (),
            bos=bos,
            eos=tokenizer.eos_token_id,
        )

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """The token of every spelling."""
        return {spelling: i for i, spelling in reversed(self.spellings.items())}


def _shared(target: _Tokens, draft: _Tokens) -> dict[int, int]:
    """Ordinary tokens that stand for the same bytes: id of the target -> id of the draft."""
    if target.words != draft.words:  # "a" as a word is no "a" within one
        return {}
    return {
        token: draft.ids[spelling]
        for spelling, token in target.ids.items()
        if spelling in draft.ids
    }


def _shared_specials(target: _Tokens, draft: _Tokens) -> dict[int, int]:
    """The special tokens of `Translation`: id of the target -> id of the draft."""
    pairs = {
        i: draft.specials[token] for token, i in target.specials.items() if token in draft.specials
    }
    if target.eos is not None and target.eos not in pairs and draft.eos is not None:
        pairs = {i: own for i, own in pairs.items() if own != draft.eos} | {target.eos: draft.eos}
    if draft.opening and target.bos is not None and target.bos != target.eos:
        pairs.pop(target.bos, None)
    return pairs


def _fewest(text: bytes, ids: dict[bytes, int]) -> tuple[int, ...]:
    """The fewest tokens that make up ``text``, none if no tokens do.

    Quadratic in the length of the text.
    """
    best: list[tuple[int, ...] | None] = [()]
    for end in range(1, len(text) + 1):
        ways = (
            (*before, ids[text[start:end]])
            for start, before in enumerate(best)
            if before is not None and text[start:end] in ids
        )
        best.append(min(ways, key=len, default=None))
    return best[-1] or ()


def _convention(tokens: Iterable[str]) -> Callable[[str], bytes]:
    """How these tokens are to be read: byte-level, sentencepiece, or (`str.encode`) as they
    stand."""
    tokens = list(tokens)
    if any(PIECE_SPACE in token for token in tokens):
        return _piece
    spelled = sum(BYTES.keys() >= set(token) for token in tokens)
    if any(BYTE_SPACE in token for token in tokens) and spelled >= BYTE_LEVEL_SHARE * len(tokens):
        return _byte_level
    return str.encode


def _piece(token: str) -> bytes:
    byte = BYTE_PIECE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(PIECE_SPACE, " ").encode()


def _byte_level(token: str) -> bytes:
    return bytes(map(BYTES.__getitem__, token)) if BYTES.keys() >= set(token) else token.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable characters of Latin-1 are themselves, the others follow
    from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


BYTES = _byte_alphabet()


def _fit(logits: Tensor, size: int) -> Tensor:
    """``[n, any]`` to ``[n, size]``: what is too long is cut, what is too short is padded with
    -inf."""
    missing = size - logits.shape[-1]
    return (
        torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
        if missing > 0
        else logits[:, :size]
    )
