"""Translation between the tokens of a draft model and those of the target."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

BYTE_SPACE = "\u0120"  # a space in a byte-level vocabulary (GPT-2's)
PIECE_SPACE = "\u2581"  # a space in a sentencepiece vocabulary
BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # a sentencepiece token that stands for one byte
# The share of tokens in GPT-2's letters that makes a vocabulary byte-level. Models add a few other
# tokens; vocabularies of other kinds have few in these letters.
BYTE_LEVEL_SHARE = 0.9


class Vocabulary(Protocol):
    """Translates between the tokens of a draft model and those of the target.

    Immutable: any thread may use it.
    """

    @property
    def opening(self) -> tuple[int, ...]:
        """The draft's tokens that stand before every text."""
        ...

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """Return tokens of the target in those of the draft.

        Each token is translated alone, so that a prefix's encoding is a prefix.
        """
        ...

    def project(self, logits: Tensor) -> Tensor:
        """Turn ``[n, draft head]`` into ``[n, target vocabulary]``.

        Tokens that the draft does not have get -inf. `encode` turns each of the others into the one
        token of the draft that its logit comes from.
        """
        ...


@dataclass(frozen=True)
class SameVocabulary:
    """Draft and target share their tokens; only the padding of their heads may differ.

    Attributes:
        size: of the target's vocabulary, its padding included.
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
    """Draft and target have different vocabularies; the draft predicts tokens that are in both.

    Its distribution is cut to the tokens that both have (Timor et al. 2025, "Accelerating LLM
    Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies",
    token-level intersection), and the tokens it reads are translated into its own. Both can only
    cost speed: drafted and judged are tokens of the target.

    - Ordinary tokens are the same if they stand for the same bytes, however the two vocabularies
      write them.
    - Special tokens are the same if they are special in both and written alike. If no token of the
      draft is the target's end of text in this way, then the draft's own end is, so that a draft
      can predict the end.
    - Other tokens of the target are read as the fewest tokens of the draft that make up the same
      bytes. The draft does not see tokens that cannot be spelled (specials of the target; bytes
      that the draft does not have).
    - A draft that opens its texts with its own token reads that one instead of the target's.

    Attributes:
        coverage: share of the target's ordinary vocabulary that the draft can predict.
        overlap: share of the smaller ordinary vocabulary that is in both.
    """

    def __init__(
        self, draft: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, size: int
    ) -> None:
        """``size``: of the target's vocabulary, its padding included."""
        self._draft = _Tokens.of(draft)
        self._target = _Tokens.of(target)
        self._size = size
        shared = _shared(self._target, self._draft)
        self.coverage = len(shared) / max(1, len(self._target.ids))
        self.overlap = len(shared) / max(1, min(len(self._target.ids), len(self._draft.ids)))
        self.opening = self._draft.opening
        pairs = shared | _shared_specials(self._target, self._draft)
        # A tokenizer may have tokens that its model has no row for. The target's are dropped here,
        # the draft's in `project`.
        self._pairs = {token: own for token, own in pairs.items() if token < size}
        self._target_ids = torch.tensor(list(self._pairs), dtype=torch.long)
        self._draft_ids = torch.tensor(list(self._pairs.values()), dtype=torch.long)
        self._spelled = cache(self._spell)  # at most one entry for each token of the target

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """See `Vocabulary.encode`."""
        return list(chain.from_iterable(map(self._spelled, tokens)))

    def project(self, logits: Tensor) -> Tensor:
        """See `Vocabulary.project`."""
        fitted = _fit(logits, max(self._pairs.values()) + 1)
        projected = fitted.new_full((fitted.shape[0], self._size), -torch.inf)
        projected[:, self._target_ids] = fitted[:, self._draft_ids]
        return projected

    def _spell(self, token: int) -> tuple[int, ...]:
        """Return one token of the target in those of the draft."""
        if token in self._pairs:
            return (self._pairs[token],)
        if self._draft.words or token not in self._target.spellings:
            return ()
        return _fewest(self._target.spellings[token], self._draft.ids)


@dataclass(frozen=True)
class _Tokens:
    """The meaning of one tokenizer's tokens.

    Attributes:
        spellings: bytes of every ordinary token; of two with the same bytes, the one that is used
            comes first.
        specials: special tokens as they are written.
        words: the tokens are whole words, or parts of them, without the spaces between words.
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
        # A character's own token comes before the token of its byte: a tokenizer uses the latter
        # only as a last resort.
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
    """Return the ordinary tokens with the same bytes: id of the target -> id of the draft."""
    if target.words != draft.words:  # "a" as a word is not "a" within a word
        return {}
    return {
        token: draft.ids[spelling]
        for spelling, token in target.ids.items()
        if spelling in draft.ids
    }


def _shared_specials(target: _Tokens, draft: _Tokens) -> dict[int, int]:
    """Return the special tokens that are the same: id of the target -> id of the draft."""
    pairs = {
        i: draft.specials[token] for token, i in target.specials.items() if token in draft.specials
    }
    if target.eos is not None and target.eos not in pairs and draft.eos is not None:
        pairs = {i: own for i, own in pairs.items() if own != draft.eos} | {target.eos: draft.eos}
    if draft.opening and target.bos is not None and target.bos != target.eos:
        pairs.pop(target.bos, None)
    return pairs


def _fewest(text: bytes, ids: dict[bytes, int]) -> tuple[int, ...]:
    """Return the fewest tokens that make up ``text``, none if no tokens do.

    The time is quadratic in the length of the text.
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
    """Return how to read these tokens: `_byte_level`, sentencepiece's `_piece`, or `str.encode`."""
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
    """Return GPT-2's letters for bytes.

    Printable characters of Latin-1 stand for themselves, the others follow from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_alphabet()


def _fit(logits: Tensor, size: int) -> Tensor:
    """Cut ``[n, any]`` to ``[n, size]``, or pad it with -inf."""
    missing = size - logits.shape[-1]
    if missing <= 0:
        return logits[:, :size]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
