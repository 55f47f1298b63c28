"""What a `TextSequence` needs besides a chain: models without weights, and requests."""

from types import SimpleNamespace

from helpers.models import VOCAB
from swarm.decoding.calibration import Calibrations
from swarm.decoding.confidence import Confidence
from swarm.decoding.rules.lexicon import Lexicon
from swarm.outputs import ONE_CORE
from swarm.request import Request

PROMPT = [5, 6, 7, 8]
NEW = 40
STOP = 3


class Tokenizer:
    """Every token is a letter and its number, so that texts can be taken apart."""

    def decode(self, ids, **_):
        return "".join(f"{'abcdefgh'[i % 8]}{i};" for i in ids)


def models(eos=frozenset(), draft=None, corrections=None):
    checkpoint = SimpleNamespace(vocab_size=VOCAB, max_positions=512, eos_token_ids=frozenset(eos))
    lexicon = Lexicon(
        Tokenizer().decode, frozenset(eos), without=frozenset({"number", "part of a word"})
    )
    return SimpleNamespace(
        checkpoint=checkpoint,
        tokenizer=Tokenizer(),
        draft=draft,
        head=None,
        lexicon=lexicon,
        confidence=Confidence(),
        calibrations=Calibrations(),
        corrections=corrections,
        compute=ONE_CORE,
    )


def options(**changed):
    return Request.of({"max_new_tokens": NEW, "window": 4, "depth": 1, **changed})
