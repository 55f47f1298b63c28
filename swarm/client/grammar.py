"""Compiles constraints to masks of a model's tokens, by llguidance.

llguidance (https://github.com/guidance-ai/llguidance) parses what is written so far, and computes
which tokens may follow in some microseconds. It goes back when a draft is refused.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

import llguidance
import llguidance.hf
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from swarm.client.json_schema import narrow
from swarm.client.outline_mask import ANSWER, AnswerMask, OutlineMask
from swarm.client.schema_limits import prepare
from swarm.client.token_texts import TokenTexts
from swarm.decoding.constraint import Constraint
from swarm.decoding.drafting.prefix import common_prefix
from swarm.decoding.mask import Mask, NotBefore
from swarm.decoding.outline import Outline
from swarm.errors import ConstraintFailed, RequestError
from swarm.model.checkpoint import Checkpoint
from swarm.request import Request

MAX_COMPILED = 64  # constraints of which the beginning of a parse is kept
KEPT_BYTES = 8 << 20  # of masks of one text
MAX_REASON_CHARS = 300
LAYOUT_KEY = "x-guidance"  # a schema's own white space and separators, as llguidance has them
# Between the parts of JSON: an indented line, and no more, or a model could write spaces for ever.
SPACES = r"[ \t]?(\r?\n[ \t]{0,12})?"


class GrammarMask:
    """The mask of one constrained answer. Any thread may call it.

    Raises `ConstraintFailed` where the grammar outgrows llguidance's bounds in the midst of a text.
    Where only one spelling of what follows is the tokenizer's own, the mask allows no other.

    Args:
        matcher: at the beginning of an answer; it belongs to this mask.
        vocabulary: the size of the target's vocabulary, and of the mask.
    """

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._read: list[int] = []  # the answer that the matcher is behind
        self._kept: OrderedDict[tuple[int, ...], Tensor | None] = OrderedDict()
        self._most_kept = max(16, KEPT_BYTES // vocabulary)

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        """See `Mask.banned`."""
        key = tuple(answer)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            mask = self._kept[key] = self._compute(answer)
            if len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
            return mask

    def forced(self, answer: Sequence[int]) -> list[int]:
        """See `Forcing.forced`."""
        with self._lock:
            if not self._go(answer) or self._matcher.is_stopped():
                return []
            tokens: list[int] = self._matcher.compute_ff_tokens()
            self._check()
            return tokens

    def ends(self, answer: Sequence[int]) -> bool:
        """Return whether nothing may follow a committed answer: it is complete.

        Raises:
            ConstraintFailed: if the grammar does not allow it, although each token was allowed.
        """
        with self._lock:
            if not self._go(answer):
                raise ConstraintFailed(
                    "the tokenizer spells a token in another way than it reads it"
                )
            return bool(self._matcher.is_stopped())

    def completes(self, answer: Sequence[int]) -> bool:
        """Return whether the grammar allows these tokens, and none behind them."""
        with self._lock:
            return self._go(answer) and bool(self._matcher.is_stopped())

    def _compute(self, answer: Sequence[int]) -> Tensor | None:
        if not self._go(answer):
            return None
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._vocabulary, bitorder="little")
        return torch.from_numpy(allowed == 0)

    def _go(self, answer: Sequence[int]) -> bool:
        """Bring the matcher behind an answer; return whether the grammar allows it."""
        same = common_prefix(self._read, answer)
        if same < len(self._read):
            self._matcher.rollback(len(self._read) - same)
            del self._read[same:]
        taken = self._matcher.try_consume_tokens(list(answer[same:]))
        self._read += answer[same : same + taken]
        self._check()
        return len(self._read) == len(answer)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintFailed(_in_one_line(self._matcher.get_error()))


class Grammars:
    """Compiles the constraints of one model's answers. Any thread may call it.

    Args:
        tokenizer: a fast one (tokenizer.json); others cannot be constrained.
        vocabulary: the size of the model's vocabulary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._tokens: dict[frozenset[int], llguidance.LLTokenizer] = {}
        self._compiled: OrderedDict[tuple[Constraint, frozenset[int]], llguidance.LLMatcher]
        self._compiled = OrderedDict()
        self._texts: TokenTexts | None = None

    def mask(self, asked: Constraint | Outline, ends: frozenset[int]) -> AnswerMask:
        """Return a new mask for one answer.

        The first one takes a second: the tokenizer's tokens are put in a trie.

        Args:
            ends: tokens that end a text; they are allowed where the answer may end.

        Raises:
            RequestError: if a constraint cannot be compiled; it says which part.
        """
        if isinstance(asked, Constraint):
            return self._part(asked, ends)
        constraints = {number: each.constraint for number, each in enumerate(asked.triggers)}
        parts = {
            number: self._part(constraint, ends)
            for number, constraint in {**constraints, ANSWER: asked.answer}.items()
            if constraint is not None
        }
        return OutlineMask(asked, parts, self._token_texts(ends), ends)

    def _token_texts(self, ends: frozenset[int]) -> TokenTexts:
        with self._lock:
            if self._texts is None:
                trie, named = self._trie(ends), self._tokenizer.added_tokens_encoder
                known = range(len(self._tokenizer))
                spelled = [trie.decode_bytes([token]).decode("utf-8", "replace") for token in known]

                def encode(text: str) -> list[int]:
                    return [named[text]] if text in named else list(trie.tokenize_str(text))

                self._texts = TokenTexts(spelled, encode, self._vocabulary)
            return self._texts

    def _part(self, constraint: Constraint, ends: frozenset[int]) -> GrammarMask:
        key = (constraint, ends)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(constraint, ends)
                if len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return GrammarMask(self._compiled[key].deep_copy(), self._vocabulary)

    def _compile(self, constraint: Constraint, ends: frozenset[int]) -> llguidance.LLMatcher:
        matcher = llguidance.LLMatcher(self._trie(ends), _grammar(constraint), log_level=0)
        if matcher.is_error():
            why = _in_one_line(matcher.get_error())
            raise RequestError(
                constraint.name, constraint.text[:50], f"one that can be compiled ({why})"
            )
        return matcher

    def _trie(self, ends: frozenset[int]) -> llguidance.LLTokenizer:
        """Return the tokens of the model, by their bytes. The last one used is kept."""
        if ends not in self._tokens:
            tokenizer = self._tokenizer
            known = [token for token in sorted(ends) if token < len(tokenizer)]
            self._tokens.clear()
            try:
                self._tokens[ends] = llguidance.hf.from_tokenizer(
                    tokenizer,
                    n_vocab=max(self._vocabulary, len(tokenizer)),
                    eos_token=known or None,
                )
            except ValueError as error:  # it is a slow one, or of an unusual kind
                kind = f"a {type(tokenizer).__name__}"
                allowed = f"none: this model's tokenizer cannot be constrained ({error})"
                raise RequestError("constraint", kind, allowed) from None
        return self._tokens[ends]


def masks_of(request: Request, checkpoint: Checkpoint, grammar: AnswerMask | None) -> list[Mask]:
    """Return what an answer may not go on with: by its constraint, and because it is too short."""
    masks: list[Mask] = [] if grammar is None else [grammar]
    ends = request.stop_ids(checkpoint)
    if request.min_tokens and ends:
        masks.append(NotBefore(request.min_tokens, ends, checkpoint.vocab_size))
    return masks


def _grammar(constraint: Constraint) -> str:
    """Return a constraint as a grammar of llguidance."""
    matcher = llguidance.LLMatcher
    if constraint.kind == "json_schema":
        grammar = _grammar_of_schema(constraint)
    elif constraint.kind == "regex":
        grammar = matcher.grammar_from_regex(constraint.text)
    elif constraint.kind == "choice":
        choices = json.loads(constraint.text)
        grammar = matcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, choices)))
    else:
        grammar = matcher.grammar_from_lark(constraint.text)
    return grammar


def _grammar_of_schema(constraint: Constraint) -> str:
    """Return the grammar of JSON that a schema allows.

    Raise `RequestError` for too deep a schema, or one that would take long to compile.
    """
    try:
        schema = json.loads(constraint.text)
        schema = {} if schema is True else schema
        prepare(schema)
        narrow(schema)
        options = None if LAYOUT_KEY in schema else {"whitespace_pattern": SPACES}
        # Alternatives of which one alone may hold nearly always exclude each other by themselves.
        coerced = {"coerce_one_of": True}
        made = json.dumps(schema)
        grammar: str = llguidance.LLMatcher.grammar_from_json_schema(made, options, coerced)
    except (RecursionError, TypeError, ValueError) as error:
        allowed = f"one that can be read ({_in_one_line(str(error))})"
        raise RequestError(constraint.name, constraint.text[:50], allowed) from None
    return grammar


def _in_one_line(error: str) -> str:
    """Return the reason of an error, without the state of the parser that may follow it."""
    reason = error.partition("<state>")[0]
    return " ".join(reason.split())[:MAX_REASON_CHARS]
