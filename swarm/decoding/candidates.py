"""The tokens of a prediction that can win, with their logits: chosen by a peer that holds the head,
used by a client that does not (`swarm.decoding.partial`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swarm.decoding.sampling import LEAST_TEMPERATURE, Sampling
from swarm.wire.candidates import MAX_WANTED, Candidates, HeadTerms

BATCH_SLACK = 1e-3  # relative
SUM_SLACK = 1e-6  # relative: sums are in float64, but other machines add in another order


@dataclass(frozen=True, eq=False)
class CandidateRow:
    """What is known of one prediction.

    Attributes:
        tokens: ``[k]`` int64, those that are listed; by descending logits, equals by ascending ids.
        logits: ``[k]`` float32, theirs.
        log_sum: logarithm of the sum of exp(logit) over the whole vocabulary.
        scaled_log_sum: the same of exp(logit / temperature); equal to it if sampling is greedy.
        plain: so many listed tokens are the best by logit.
        scored: so many are the best by logit / temperature + noise.
        vocabulary: how many tokens there are.
    """

    tokens: Tensor
    logits: Tensor
    log_sum: float
    scaled_log_sum: float
    plain: int
    scored: int
    vocabulary: int

    @property
    def count(self) -> int:
        """How many tokens were asked for."""
        return self.plain + self.scored


def head_terms(sampling: Sampling, biases: Sequence[tuple[int, float]], count: int) -> HeadTerms:
    """Return the terms on which a peer should answer a generation.

    Args:
        biases: added to logits. These tokens are always wanted: one may win from below the listed
            ones, and the sum of the others is not known without them. Of very many, only those that
            grow most are.
    """
    largest = sorted(biases, key=lambda pair: -pair[1])[:MAX_WANTED]
    wanted = np.array(sorted(token for token, _ in largest), dtype="<u4")
    sampled = sampling.temperature > 0
    return HeadTerms(
        count=count,
        temperature=float(sampling.temperature),
        seed=sampling.seed if sampled else 0,
        wanted=wanted.tobytes(),
    )


def choose_candidates(logits: Tensor, positions: Sequence[int], terms: HeadTerms) -> Candidates:
    """Return what a peer answers.

    Args:
        logits: ``[n, vocabulary]`` float32.
        positions: in the text, of the tokens that the rows predict.
    """
    rows = logits.float().cpu()
    sampling = Sampling(terms.temperature, seed=terms.seed)
    listed = [
        _listed(row, position, terms, sampling)
        for row, position in zip(rows, positions, strict=True)
    ]
    values = [row[tokens] for row, tokens in zip(rows, listed, strict=True)]
    return Candidates(
        counts=tuple(map(len, listed)),
        tokens=b"".join(tokens.numpy().astype("<u4").tobytes() for tokens in listed),
        logits=b"".join(each.numpy().astype("<f4").tobytes() for each in values),
        log_sums=_log_sums(rows, terms.temperature),
    )


def whole_row(logits: Tensor, terms: HeadTerms) -> Candidates:
    """Return a whole prediction, ``logits`` ``[vocabulary]`` float32, as a peer answers it."""
    row = logits.float().cpu()
    return Candidates(
        counts=(len(row),),
        logits=row.numpy().astype("<f4").tobytes(),
        log_sums=_log_sums(row[None], terms.temperature),
    )


def _listed(row: Tensor, position: int, terms: HeadTerms, sampling: Sampling) -> Tensor:
    """Return the tokens to tell of a row, in their order."""
    vocabulary = len(row)
    wanted = torch.from_numpy(np.frombuffer(terms.wanted, "<u4").astype(np.int64))
    chosen = [row.topk(min(terms.plain, vocabulary)).indices, wanted[wanted < vocabulary]]
    if terms.scored:
        scores = sampling.scores(row, position)
        chosen.append(scores.topk(min(terms.scored, vocabulary)).indices)
    tokens = torch.from_numpy(np.unique(torch.cat(chosen).numpy()))
    order: Tensor = row[tokens].argsort(descending=True, stable=True)
    return tokens[order]


def _log_sums(rows: Tensor, temperature: float) -> bytes:
    exact = rows.double()
    plain = scaled = exact.logsumexp(-1)
    if temperature:
        scaled = (exact / max(temperature, LEAST_TEMPERATURE)).logsumexp(-1)
    sums = torch.stack([plain, scaled], dim=-1)
    return sums.numpy().astype("<f8").tobytes()


def read_candidates(answer: Candidates, terms: HeadTerms, vocabulary: int) -> list[CandidateRow]:
    """Return the rows of an answer; what it says is checked by `objection`."""
    tokens = np.frombuffer(answer.tokens, "<u4").astype(np.int64)
    logits = np.frombuffer(answer.logits, "<f4").astype(np.float32)
    if not len(tokens):  # of all tokens
        tokens = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))
        logits = logits[tokens]
    log_sums = np.frombuffer(answer.log_sums, "<f8").reshape(-1, 2)
    borders = np.cumsum(answer.counts)[:-1]
    rows = zip(np.split(tokens, borders), np.split(logits, borders), log_sums, strict=False)
    return [
        CandidateRow(
            torch.from_numpy(ids.copy()),
            torch.from_numpy(values.copy()),
            float(log_sum),
            float(scaled),
            terms.plain,
            terms.scored,
            vocabulary,
        )
        for ids, values, (log_sum, scaled) in rows
        if len(ids)
    ]


def objection(row: CandidateRow, terms: HeadTerms) -> str | None:
    """Return why a row cannot be what `choose_candidates` tells, in words; None if it can.

    Of the whole vocabulary no row leaves anything open, so its order is not looked at.
    """
    tokens, logits, vocabulary = row.tokens, row.logits.double(), row.vocabulary
    wanted = set(np.frombuffer(terms.wanted, "<u4").tolist())
    least = min(max(terms.plain, terms.scored), vocabulary)
    listed = set(tokens.tolist())
    if not bool(torch.isfinite(logits).all()):
        return "its logits are not finite"
    if not (math.isfinite(row.log_sum) and math.isfinite(row.scaled_log_sum)):
        return "its sums are not finite"
    if int(tokens.max()) >= vocabulary or len(listed) != len(tokens):
        return f"its tokens are not different ones of {vocabulary}"
    if len(tokens) != vocabulary and not least <= len(tokens) <= terms.count + len(wanted):
        return f"it tells {len(tokens)} tokens, where {terms.count} were asked for"
    if len(tokens) != vocabulary and not {id_ for id_ in wanted if id_ < vocabulary} <= listed:
        return "it leaves out tokens that were asked for"
    if bool((logits[1:] > logits[:-1]).any()):
        return "its tokens are not in the order of their logits"
    return _sums_objection(row, terms)


def _sums_objection(row: CandidateRow, terms: HeadTerms) -> str | None:
    """Return why the sums do not fit the logits: they are at least those of the listed tokens, and
    no other token is likelier than the last of the best ones."""
    others = row.vocabulary - len(row.tokens)
    logits = row.logits.double()
    at = max(terms.temperature, LEAST_TEMPERATURE) if terms.temperature else 1.0
    for log_sum, temperature in ((row.log_sum, 1.0), (row.scaled_log_sum, at)):
        scaled = logits / temperature
        parts = float(scaled.logsumexp(-1))
        last = float(scaled[min(terms.plain, len(scaled)) - 1])
        most = float(np.logaddexp(parts, last + math.log(others))) if others else parts
        slack = SUM_SLACK * (1.0 + abs(parts))
        if not parts - slack <= log_sum <= most + slack:
            return "its sums do not fit its logits"
    return None


def contradiction(told: CandidateRow, fuller: CandidateRow) -> str | None:
    """Return why two rows cannot be parts of the same prediction, in words; None if they can.

    The logits may differ as much as two batches of one computation do.
    """
    places = {token: place for place, token in enumerate(fuller.tokens.tolist())}
    if not all(token in places for token in told.tokens.tolist()):
        return "it leaves out tokens that it told before"
    again = fuller.logits[[places[token] for token in told.tokens.tolist()]]
    slack = BATCH_SLACK * (1.0 + float(told.logits.abs().max()))
    off = float((again - told.logits).abs().max())
    sums = abs(fuller.log_sum - told.log_sum)
    ceiling = float(told.logits[min(told.plain, len(told.logits)) - 1]) + slack
    listed = torch.isin(fuller.tokens, told.tokens)
    if off > slack or sums > slack or bool((fuller.logits[~listed] > ceiling).any()):
        return "it contradicts what it told before"
    return None
