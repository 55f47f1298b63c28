"""What a last peer that holds the model's head tells of a prediction, and on which terms.

A prediction is a row of logits, one for each token of the vocabulary. The peer tells its best
tokens with their logits, and the logarithm of the sum of all exponentials. From that a client
decides as from the whole row (`swarm.decoding.partial`).
"""

import math
from typing import Annotated

from pydantic import Field, model_validator

from swarm.wire.fields import MAX_VOCABULARY, StrictModel
from swarm.wire.tensors import MAX_FRAME_TOKENS, MAX_TENSOR_BYTES

LEAST_CANDIDATES = 8  # fewer decide too little
MAX_CANDIDATES = 256  # of one prediction, besides those that are always wanted
MAX_WANTED = 256  # tokens that are always told; each costs 8 bytes a prediction
MAX_SEED = (1 << 63) - 1
ENTRY_BYTES = 4  # of a token id, and of a logit
LOG_SUM_BYTES = 8
LOG_SUMS = 2  # of each row: at temperature 1, and at that of the terms
SCORED_SHARE = 4  # one candidate in so many is chosen with noise, if there is any


class HeadTerms(StrictModel):
    """Which tokens of a prediction are told: the best by logit, and the best with noise.

    Without a ``temperature`` the best ``count`` by logit are told, else fewer of these (`plain`)
    and the best by ``logit / temperature + noise`` (`scored`). The noise is that of
    `swarm.decoding.sampling`, keyed by ``seed`` and the position of the token in the text. Tokens
    in both lists are told once. The ``wanted`` tokens, ids of four little-endian bytes, are told in
    any case.
    """

    count: Annotated[int, Field(ge=LEAST_CANDIDATES, le=MAX_CANDIDATES)]
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=MAX_SEED + 1)] = 0
    wanted: Annotated[bytes, Field(max_length=ENTRY_BYTES * MAX_WANTED)] = b""

    @model_validator(mode="after")
    def _holds_whole_ids(self) -> "HeadTerms":
        if len(self.wanted) % ENTRY_BYTES:
            raise ValueError(f"{len(self.wanted)} bytes are no token ids of {ENTRY_BYTES} bytes")
        return self

    @property
    def scored(self) -> int:
        """How many of the best tokens with noise are told."""
        return self.count // SCORED_SHARE if self.temperature else 0

    @property
    def plain(self) -> int:
        """How many of the best tokens by logit are told."""
        return self.count - self.scored


class Candidates(StrictModel):
    """Tokens and exact logits of some predictions, one row each.

    ``counts`` says how many tokens each row has. The rows' ids (unsigned) and logits (float32)
    follow each other, four little-endian bytes each. Without ids a single row has the logits of all
    tokens, in the order of their ids. ``log_sums`` has two float64 numbers a row: the logarithm of
    the sum of all exponentials of the logits, and of the logits divided by the temperature, where
    there is one.
    """

    counts: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_VOCABULARY)], ...],
        Field(strict=False, max_length=MAX_FRAME_TOKENS),
    ]
    tokens: Annotated[bytes, Field(max_length=MAX_TENSOR_BYTES)] = b""
    logits: Annotated[bytes, Field(max_length=MAX_TENSOR_BYTES)] = b""
    log_sums: Annotated[bytes, Field(max_length=LOG_SUMS * LOG_SUM_BYTES * MAX_FRAME_TOKENS)] = b""

    @model_validator(mode="after")
    def _sizes_fit_counts(self) -> "Candidates":
        entries = sum(self.counts)
        whole = not self.tokens and len(self.counts) == 1
        if len(self.tokens) != ENTRY_BYTES * entries and not whole:
            raise ValueError(f"{len(self.tokens)} bytes of ids for {entries} tokens")
        if len(self.logits) != ENTRY_BYTES * entries:
            raise ValueError(f"{len(self.logits)} bytes of logits for {entries} tokens")
        if len(self.log_sums) != math.prod((LOG_SUMS, LOG_SUM_BYTES, len(self.counts))):
            raise ValueError(f"{len(self.log_sums)} bytes of sums for {len(self.counts)} rows")
        return self

    @property
    def nbytes(self) -> int:
        """The bytes of ids, logits and sums."""
        return len(self.tokens) + len(self.logits) + len(self.log_sums)
