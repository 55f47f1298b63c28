"""A published head, read and made ready to draft for one target."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from swarm.decoding.drafting.blocks import BlockDrafter
from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.drafter import Drafter, Source
from swarm.decoding.drafting.features import FeatureDrafter
from swarm.decoding.drafting.frequency import most_frequent
from swarm.decoding.drafting.reduced import ReducedVocabulary
from swarm.decoding.drafting.vocabulary import SameVocabulary, Vocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ALL, AUTO, ComputeOptions
from swarm.model.drafts.dtype import place
from swarm.model.drafts.reduced_head import WORTH_SHARE
from swarm.model.edge import explained
from swarm.model.forward_watch import ForwardWatch
from swarm.model.head import Head
from swarm.model.heads import eagle, eagle3
from swarm.model.heads.block import BlockHead
from swarm.model.heads.block_loading import BlockParts, give_bias, is_block, read_block_head
from swarm.model.heads.eagle import eagle_head, is_eagle
from swarm.model.heads.eagle3 import eagle3_head, is_eagle3, tapped_layers
from swarm.model.heads.embedding import Embedding, lm_head_of
from swarm.model.heads.files import HeadFiles
from swarm.model.heads.head import FeatureHead
from swarm.model.heads.mtp import mtp_head
from swarm.model.heads.reader import HeadParts
from swarm.model.kernels.int8_linear import store_layers_in_int8
from swarm.model.quantization import NF4

MTP = "mtp"  # names the layer inside the target's own checkpoint
# Tokens whose rows of the target's LM head a head has, unless asked otherwise: the most frequent
# ones. The whole LM head of a large vocabulary takes longer than the head's layer.
HEAD_VOCAB = 32_768
PROMPT_FEATURES = 512  # positions of a prompt's end that are answered for a head
OWN_ROWS = "lm_head.weight"
OFFSETS = "d2t"
KEPT = "t2d"  # of each of the target's tokens, whether there is a row for it


@dataclass(frozen=True)
class FeatureDraft:
    """A head that drafts, shared by all generations of a client: a `DraftModel` for its users.

    Attributes:
        dtype: the name of its weights' dtype, one of `swarm.model.compute.DRAFT_DTYPES`.
        weights: how many it has, those of its LM head included.
        vocab: how many tokens its LM head computes.
        asked: whether this dtype was asked for; else it is the fastest one here.
        prompt_features: how many positions of a prompt's end are answered for it.
        taps: the layers of the target whose outputs it reads; none for the last one's answers.
    """

    parts: HeadParts | BlockParts
    vocabulary: Vocabulary
    dtype: str
    weights: int
    vocab: int
    asked: bool = False
    prompt_features: int = PROMPT_FEATURES
    taps: tuple[int, ...] = ()

    def watch(self, watch: ForwardWatch) -> None:
        """Let a watch be told of the head's forwards."""
        self.parts.head.watch = watch

    @property
    def branching(self) -> None:
        """A head reads no text by itself."""
        return None

    @property
    def in_blocks(self) -> bool:
        """Whether it guesses a whole block of tokens at once."""
        return isinstance(self.parts, BlockParts)

    @property
    def source(self) -> Source:
        """Which source its guesses come from."""
        return Source.FEATURES

    @property
    def device(self) -> torch.device:
        return self.parts.head.device

    def drafter(self, sampling: Sampling, shaping: Shaping, stop_ids: frozenset[int]) -> Drafter:
        """Return a drafter for one generation, with its own cache."""
        chooser = Chooser(sampling, self.vocabulary, shaping, stop_ids, self.source)
        how = (chooser, self.prompt_features, self.taps)
        if isinstance(self.parts, BlockParts):
            return BlockDrafter(self.parts.reader(), *how)
        return FeatureDrafter(self.parts.reader(), *how)


def names_head(name: str) -> bool:
    """Return whether a draft's name means a head of the target, which cannot write alone.

    Args:
        name: a local folder, a hub id, or MTP.
    """
    files = None if name == MTP else HeadFiles.find(name)
    if files is None:
        return name == MTP
    return is_block(files.shapes) or is_eagle3(files.shapes) or is_eagle(files.shapes)


def load_head(
    name: str,
    target: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    options: ComputeOptions,
) -> FeatureDraft | None:
    """Load the head that a draft's name means; None if it names another kind of draft.

    Args:
        name: a local folder, a hub id, or MTP.
        tokenizer: of the target.

    Raises:
        DamagedModel, UnsupportedModel: if it cannot be read, or is not for this target.
        NoSuchDevice: if this computer has no such device.
    """
    if name == MTP:
        return _ready(name, mtp_head(target), None, target, tokenizer, options)
    files = HeadFiles.find(name)
    if files is None:
        return None
    if is_block(files.shapes):
        block, taps = read_block_head(files, target)
        return _ready(files.name, block, files, target, tokenizer, options, taps)
    if is_eagle3(files.shapes):
        head, taps = _read_eagle3(files, target)
        return _ready(files.name, head, files, target, tokenizer, options, taps)
    if not is_eagle(files.shapes):
        return None
    head = _read(files, target, lambda: eagle_head(files.config, files.shapes), eagle.own_name)
    return _ready(files.name, head, files, target, tokenizer, options)


def _read_eagle3(files: HeadFiles, target: Checkpoint) -> tuple[FeatureHead, tuple[int, ...]]:
    def make() -> FeatureHead:
        return eagle3_head(files.config, files.shapes, target.hidden_size)

    head = _read(files, target, make, eagle3.own_name)
    with explained(lambda why: UnsupportedModel(files.name, why)):
        taps = tapped_layers(files.config, target.num_layers)
        if len(taps) * target.hidden_size != files.shapes["fc.weight"][1]:
            raise ValueError(f"it reads {len(taps)} layers, which do not fit its weights")
    return head, taps


def _read(
    files: HeadFiles,
    target: Checkpoint,
    make: Callable[[], FeatureHead],
    own_name: Callable[[str], str | None],
) -> FeatureHead:
    """Return a head with the published weights.

    Args:
        make: returns one without.
        own_name: where a published tensor lies in it.
    """

    def unfit(why: str) -> UnsupportedModel:
        return UnsupportedModel(files.name, f"its weights do not fit its configuration ({why})")

    with explained(unfit):
        with torch.device("meta"):
            head = make()
        decoder = head.decoder
        _check_width(files.name, int(decoder.config.hidden_size), target)
        decoder.rotary_emb = type(decoder.rotary_emb)(config=decoder.config)
        places = {own_name(each): each for each in files.shapes}
        wanted = [each for each in head.state_dict() if each in places]
        head.load_state_dict(
            {each: files.tensor(places[each]).float() for each in wanted},
            assign=True,
            strict=False,
        )
    _check_complete(files.name, head)
    return head


def _check_width(name: str, width: int, target: Checkpoint) -> None:
    if width != target.hidden_size:
        sizes = f"of {width:,} dimensions, and those of {target.name} have {target.hidden_size:,}"
        raise UnsupportedModel(name, f"it is a head for hidden states {sizes}")


def _check_complete(name: str, head: nn.Module) -> None:
    missing = [each for each, tensor in head.named_parameters() if tensor.is_meta]
    if missing:
        raise UnsupportedModel(name, f"its checkpoint lacks the weights of {missing[0]}")


def _ready(
    name: str,
    head: FeatureHead | BlockHead,
    files: HeadFiles | None,
    target: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    options: ComputeOptions,
    taps: tuple[int, ...] = (),
) -> FeatureDraft:
    """Give a head its LM head, put it where it computes fastest, and join it with the target's
    parts."""
    lm_head, rows = lm_head_for(files, target, tokenizer, options, own=bool(taps))
    with torch.device("meta"):
        head.lm_head = nn.Linear(lm_head.shape[1], lm_head.shape[0], bias=False)
    head.lm_head.weight = nn.Parameter(lm_head)
    if isinstance(head, BlockHead) and files is not None:
        give_bias(head, files, rows)
    weights = sum(parameter.numel() for parameter in head.parameters())
    placement = place(options, weights, target.hidden_size)
    if placement.dtype == NF4.name:
        raise UnsupportedModel(name, "a head cannot draft in nf4; give another draft dtype")
    dtype = torch.bfloat16 if placement.dtype == "bfloat16" else torch.float32
    head = head.to(placement.device, dtype).eval().requires_grad_(False)
    if placement.dtype == "int8":
        store_layers_in_int8(head, head.run_once)
    vocabulary: Vocabulary = SameVocabulary(target.vocab_size)
    if rows is not None:
        vocabulary = ReducedVocabulary(vocabulary, rows)
    return FeatureDraft(
        _parts(head, target),
        vocabulary,
        placement.dtype,
        weights,
        len(lm_head),
        asked=options.draft_dtype != AUTO,
        taps=taps,
    )


def _parts(head: FeatureHead | BlockHead, target: Checkpoint) -> HeadParts | BlockParts:
    embedding = Embedding.of(target)
    if isinstance(head, BlockHead):
        if head.wiring.mask_token >= len(embedding):
            why = f"its mask is the token {head.wiring.mask_token}, and there are {len(embedding)}"
            raise UnsupportedModel(target.name, why)
        return BlockParts(head, embedding)
    final_norm = Head.norm_of(target) if head.wiring.normed_features else None
    return HeadParts(head, embedding, final_norm)


def lm_head_for(
    files: HeadFiles | None,
    target: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    options: ComputeOptions,
    own: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the LM head of a head, and the tokens that its rows are for; None for all.

    Args:
        own: if it has one for all tokens, that is not a copy of the target's.
    """
    tokens = _own_tokens(files, target) if files is not None else None
    has_rows = files is not None and OWN_ROWS in files.shapes
    if files is not None and has_rows and (tokens is not None or own):
        return files.tensor(OWN_ROWS)[: target.vocab_size], tokens
    rows = _frequent(target, tokenizer, options) if tokens is None else tokens
    return (lm_head_of(target) if rows is None else lm_head_of(target)[rows]), rows


def _own_tokens(files: HeadFiles, target: Checkpoint) -> Tensor | None:
    """Return which tokens the head predicts, in the order of its LM head's rows; None for a head
    that does not say."""
    offsets = files.shapes.get(OFFSETS)
    if offsets is None:
        return None
    tokens = torch.arange(offsets[0]) + files.tensor(OFFSETS).long()
    if KEPT in files.shapes:  # some publishers give the tokens themselves
        kept = files.tensor(KEPT).bool().nonzero().flatten()
        tokens = kept if kept.equal(files.tensor(OFFSETS).long()) else tokens
    in_order = bool((tokens.diff() > 0).all() and (tokens >= 0).all())
    fits = files.shapes.get(OWN_ROWS) in (None, (len(tokens), target.hidden_size))
    if not len(tokens) or not fits or not in_order:
        raise DamagedModel(files.name, OFFSETS, f"does not fit the rows of {OWN_ROWS}")
    if int(tokens[-1]) >= target.vocab_size:
        raise UnsupportedModel(files.name, f"it predicts tokens that {target.name} does not have")
    return tokens


def _frequent(
    target: Checkpoint, tokenizer: PreTrainedTokenizerBase, options: ComputeOptions
) -> Tensor | None:
    """Return the tokens whose rows of the target's LM head are worth their time; None for all."""
    count = options.draft_vocab if isinstance(options.draft_vocab, int) else HEAD_VOCAB
    if options.draft_vocab == ALL or count > WORTH_SHARE * target.vocab_size:
        return None
    tokens = most_frequent(tokenizer, range(target.vocab_size), count, target.eos_token_ids)
    return torch.tensor(tokens)
