"""Serve a small model of one type in every way that a session may take, and compare.

`serve` goes the way of `swarm.model.rehearsal`, as every peer and client does: a small random model
of the class is run whole, and then as two spans and a head. What passes is run here in chunks,
after rollbacks, beside a neighbour, as sub-spans, by a replacement, and as a tree.

``python -m helpers.sweep [MODEL_TYPE...]``, in the folder tests, prints the outcome for each type.
"""

import random
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from helpers.all_types import CASES, Case
from helpers.local_chain import Session
from swarm.client.judging import judge
from swarm.decoding.certificate import Choosing
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.errors import UnsupportedModel
from swarm.model.anatomy import study
from swarm.model.edge import QUIET, reason
from swarm.model.fit import check_fit
from swarm.model.folder import Stored
from swarm.model.head import Head
from swarm.model.kernels.int8 import Plain
from swarm.model.rehearsal import Rehearsal, rehearse
from swarm.model.work import Work
from swarm.wire.token_tree import Placement

BOUND = 1e-4  # of the error of a logit, relative to the largest logit
LEAST_VOCAB = 50  # of a miniature
# The names of dtypes in a file. Models in double precision are saved in single.
DTYPES = {torch.float64: "F32", torch.float32: "F32", torch.bool: "BOOL"}

# One session's text, by its pieces: a prompt in two chunks, then token by token.
TEXT = torch.tensor([7, 9, 30, 11, 12, 13, 14, 21, 5, 40])
PIECES = (4, 3, 1, 1, 1)
OTHER = torch.tensor([33, 8, 19])  # what follows its first eight tokens after a rollback
NEIGHBOUR = torch.tensor([6, 26, 17, 42])


@dataclass(frozen=True)
class Outcome:
    """How a model is served.

    Attributes:
        served: whether it is.
        packs: whether its sessions share a forward.
        branches: whether a token may have several continuations.
        parts: whether it may be cut behind each layer, only behind some, or nowhere.
        why: why it is not served, or not packed; empty if it is.
    """

    served: bool
    packs: bool = False
    branches: bool = False
    parts: str = ""
    why: str = ""


def serve(case: Case) -> Outcome:
    """Serve a small random model of this type.

    Raises:
        AssertionError: if a logit is wrong.
        Exception: any other than `UnsupportedModel`, which a user would see as a fault.
    """
    try:
        with QUIET:
            config = case.config()
    except Exception as error:  # of the class, which its own defaults do not satisfy
        return Outcome(False, why=f"its class makes no configuration by itself ({reason(error)})")
    if not hasattr(config, "num_hidden_layers"):
        return Outcome(False, why="its configuration has no num_hidden_layers")
    try:
        with QUIET:
            rehearsal = rehearse("a model", config, study(bare(config)))
        saved = bare(rehearsal.whole.config, rehearsal.whole)
        check_fit(saved, study(saved))
    except UnsupportedModel as error:
        return Outcome(False, why=error.why)
    with QUIET, torch.inference_mode():
        _Exercise(rehearsal).run()
    span = rehearsal.spans[0]
    some = "only where nothing else crosses" if rehearsal.cuts.places else "no, only whole"
    parts = "behind each layer" if rehearsal.cuts.everywhere else some
    why = "" if span.packs else span.why_alone
    return Outcome(True, span.packs, span.branches, parts, why)


def bare(config: PreTrainedConfig, model: PreTrainedModel | None = None) -> Any:
    """Return a checkpoint of the model that lies nowhere; without one, of the configuration alone.

    Its tensors have the names and shapes that `save_pretrained` gives them.
    """
    tensors = {}
    if model is not None:
        keys = model.all_tied_weights_keys
        own = {name: each for name, each in model.state_dict().items() if name not in keys}
        tensors = revert_weight_conversion(model, own)
    stored = {
        name: Stored(DTYPES.get(each.dtype, "I64"), tuple(each.shape))
        for name, each in tensors.items()
    }

    class _Bare(SimpleNamespace):  # which, unlike its base class, can be a key
        __hash__ = object.__hash__

    return _Bare(
        name="a model",
        config=config,
        model_config=config,
        num_layers=config.num_hidden_layers,
        quantization=None,
        wrapper=None,
        packed=dict,
        stored=lambda: stored,
        tensor_names=lambda: sorted(stored),
    )


class _Exercise:
    """Runs two spans and a head as a swarm runs them. Raises AssertionError for a wrong logit."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._whole = rehearsal.whole
        self._spans = rehearsal.spans
        self._head = rehearsal.head
        self._packs = all(span.packs for span in self._spans)
        self._branches = all(span.branches for span in self._spans)

    def run(self) -> None:
        session = Session(self._spans)
        at = 0
        got, hidden = [], []  # logits; what the first span told the second
        for count in PIECES:
            piece = TEXT[at : at + count]
            logits, between = self._forward((session, piece, session.place(count)))[0]
            got.append(logits)
            hidden.append(between)
            at += count
        expected = self._expected(TEXT)
        self._same(torch.cat(got), expected, "in chunks")
        self._replace(torch.cat(hidden), expected)
        self._back(session)
        self._sub_spans(expected)
        if self._branches:
            self._tree()
        _check_bounds(self._head, self._output)

    def _replace(self, hidden: torch.Tensor, expected: torch.Tensor) -> None:
        """The last span's peer is replaced: the next one gets all but the last token at once."""
        span = self._spans[-1]
        if span.first == 0:
            return
        cache = span.new_cache()
        span.forward([Work.behind(cache, hidden[:-1])])
        last = span.forward([Work.behind(cache, hidden[-1:])])[0]
        self._same(self._head.logits(last), expected[-1:], "after a replay")

    def _back(self, session: Session) -> None:
        """The last two tokens are taken back; others follow, beside a younger session."""
        neighbour = Session(self._spans)
        self._forward((neighbour, NEIGHBOUR[:1], neighbour.place(1)))
        (ours, _), (theirs, _) = self._forward(
            (session, OTHER, session.place(3, epoch=1, root=8, parents=(3, 1, 1))),
            (neighbour, NEIGHBOUR[1:3], neighbour.place(2)),
        )
        text = torch.cat([TEXT[:8], OTHER])
        self._same(ours, self._expected(text)[8:], "after a rollback")
        beside = self._expected(NEIGHBOUR)
        self._same(theirs, beside[1:3], "beside another session")
        last, _ = self._forward((neighbour, NEIGHBOUR[3:], neighbour.place(1)))[0]
        self._same(last, beside[3:], "behind another session")

    def _sub_spans(self, expected: torch.Tensor) -> None:
        """A chain enters and leaves the first span within it."""
        values = [TEXT[:6], TEXT[6:]]
        for span in self._spans:
            inside = [each for each in span.cuts.borders if span.first < each <= span.last]
            middle = min(inside, key=lambda each: abs(2 * each - span.first - span.last))
            for ends in ((span.first, middle), (middle, span.last)):
                if ends[0] < ends[1]:
                    cache = span.new_cache(*ends)
                    values = [span.forward([Work.behind(cache, each)], *ends)[0] for each in values]
        self._same(self._head.logits(torch.cat(values)), expected, "in parts of a span")

    def _tree(self) -> None:
        """Two frames of branches beside a neighbour; between them the root moves."""
        session, neighbour = Session(self._spans), Session(self._spans)
        root = 7
        self._forward((session, TEXT[:root], session.place(root)))
        paths = {root: TEXT[:root].tolist()}
        rng = random.Random(23)
        for frame, parents in enumerate(((1, 1, 3, 1, 2, 1), (1, 2, 5, 1))):
            first = session.stream.last + 1
            tokens = [rng.randrange(3, LEAST_VOCAB) for _ in parents]
            for serial, (token, back) in enumerate(zip(tokens, parents, strict=True), first):
                paths[serial] = [*paths[serial - back], token]
            placed = session.place(len(parents), root=root, parents=parents)
            (ours, _), _ = self._forward(
                (session, torch.tensor(tokens), placed),
                (neighbour, NEIGHBOUR[frame : frame + 1], neighbour.place(1)),
            )
            for serial in _leaves(paths, first):
                rows = [each for each in range(first, first + len(parents))]
                path = paths[serial]
                expected = self._expected(torch.tensor(path))
                for row in rows:
                    if path[: len(paths[row])] == paths[row]:
                        at = len(paths[row]) - 1
                        self._same(ours[row - first], expected[at], "along a branch")
            root = first + 2  # one of the first frame's branches has won
            stem = paths[root]
            paths = {each: path for each, path in paths.items() if path[: len(stem)] == stem}

    def _forward(
        self, *works: tuple[Session, torch.Tensor, Placement]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each work's logits, and the inputs of the last span."""
        values = between = [inputs for _, inputs, _ in works]
        for stage, span in enumerate(self._spans):
            between = values
            values = span.forward(
                [
                    Work(session.caches[stage], value, placed)
                    for (session, _, placed), value in zip(works, values, strict=True)
                ]
            )
        self._output = values[0]
        return [(self._head.logits(value), own) for value, own in zip(values, between, strict=True)]

    def _expected(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._whole(input_ids=ids[None], use_cache=False).logits[0]
        return logits

    def _same(self, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
        error = ((got - expected).abs().max() / expected.abs().max()).item()
        assert error <= BOUND, f"{when} a logit is wrong by {error:.2g} of the largest"


def _leaves(paths: dict[int, list[int]], first: int) -> list[int]:
    """Return the serials from `first` on whose paths no other continues."""
    continued = [path[:-1] for path in paths.values()]
    return [each for each, path in paths.items() if each >= first and path not in continued]


def _check_bounds(head: Head, hidden: torch.Tensor) -> None:
    """Raise AssertionError if the head chooses otherwise by the bounds of an int8 copy."""
    head._model.float()  # as a client's is
    head.dtype = torch.float32
    head.round(Plain)
    places = tuple((token,) for token in range(len(hidden)))
    for sampling in (Sampling(), Sampling(1.0, seed=3)):
        choosing = Choosing(sampling, Shaping(1.2), (1, 2, 3), places)
        judged = judge(head, hidden, choosing)
        exact = choosing.choose(head.logits(hidden))
        for choice, row, right in zip(judged.choices, judged.logits, exact, strict=True):
            assert choice == right or (choice is None and row is not None), "its bounds are wrong"


def main(names: list[str]) -> int:
    """Print the outcome for each type. Returns how many are wrong."""
    wrong = 0
    for name in names or CASES:
        start = time.process_time()
        try:
            outcome = serve(CASES[name])
            kind = "served" if outcome.served else "refused"
            kind = "packed" if outcome.packs else kind
        except AssertionError as error:
            outcome = Outcome(False, why=str(error))
            kind = "WRONG"
            wrong += 1
        cpu_s = time.process_time() - start
        told = f"{outcome.parts} {outcome.why[:200]}"
        print(f"{name:26} {kind:8} {cpu_s:5.2f} s  {told}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
