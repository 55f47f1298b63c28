"""The tokenizer of a model, made from the vocabulary in its GGUF file.

Two kinds are read: byte-level BPE (``gpt2``), and BPE of SentencePiece (``llama``), whose merges a
file need not hold, because its tokens and their scores imply them.
"""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.edge import explained
from swarm.model.gguf.metadata import Metadata
from swarm.model.gguf.splitting import SPLITTINGS

PREFIX = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
SPACE = "\u2581"  # SentencePiece's sign for a space
# Kinds of tokens, ``llama_token_type`` in llama.h.
CONTROL = 3
USER_DEFINED = 4
SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# Merges are looked for at every place in every token.
MAX_TOKEN_CHARS = 1 << 10
MAX_VOCABULARY_CHARS = 1 << 25


def make_tokenizer(metadata: Metadata) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a file describes.

    Raises:
        DamagedModel: if its vocabulary is missing or damaged.
        UnsupportedModel: if it is of a kind that is not read.
    """
    tokens = metadata.texts(f"{PREFIX}tokens")
    if not tokens:
        raise DamagedModel(metadata.model, metadata.file, "holds no vocabulary")
    lengths = [len(token) for token in tokens]
    if max(lengths) > MAX_TOKEN_CHARS or sum(lengths) > MAX_VOCABULARY_CHARS:
        why = f"holds a token of {max(lengths):,} characters, or too many long ones"
        raise DamagedModel(metadata.model, metadata.file, why)
    kind = metadata.text(f"{PREFIX}model")
    if kind not in ("gpt2", "llama"):
        why = (
            f"its GGUF file has a tokenizer of the kind {kind[:50]!r}, and gpt2 and llama are read"
        )
        raise UnsupportedModel(metadata.model, why)

    def unusable(why: str) -> DamagedModel:
        return DamagedModel(metadata.model, metadata.file, f"gives no tokenizer ({why})")

    with explained(unusable):
        if kind == "gpt2":
            tokenizer, bos = _byte_level(metadata, tokens)
        else:
            tokenizer, bos = _sentencepiece(metadata, tokens)
        return _finished(metadata, tokens, tokenizer, bos)


def _byte_level(metadata: Metadata, tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    """Return the tokenizer, and whether texts begin with a token of their own by default."""
    name = metadata.text(f"{PREFIX}pre", "default")
    splitting = SPLITTINGS.get(name)
    if splitting is None:
        why = f"its GGUF file says that text is split into words as {name[:50]!r} does"
        why = f"{why}, which we do not know: tokens would be others than those it was trained with"
        raise UnsupportedModel(metadata.model, why)
    merges = [_pair(merge) for merge in metadata.texts(f"{PREFIX}merges") or ()]
    vocabulary = _vocabulary(tokens)
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=splitting.whole_words))
    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in splitting.patterns]
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, splitting.bos


def _sentencepiece(metadata: Metadata, tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    prefixed = metadata.flag(f"{PREFIX}add_space_prefix", True)
    spelled = [SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    vocabulary = _vocabulary(spelled)
    listed = metadata.texts(f"{PREFIX}merges")
    if listed is None:
        merges = implied_merges(vocabulary, _ranks(metadata, spelled))
    else:
        merges = [_pair(merge) for merge in listed]
    unknown = metadata.index(f"{PREFIX}unknown_token_id", len(tokens))
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            merges,
            unk_token=None if unknown is None else spelled[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    scheme = "first" if prefixed else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefixed:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, True


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _ranks(metadata: Metadata, tokens: Sequence[str]) -> Sequence[float]:
    """Return a number for each token: merges that make a token of a lower one come first."""
    scores = metadata.numbers(f"{PREFIX}scores")
    # The scores of Gemma's files do not follow the order of its merges; its tokens do.
    if metadata.architecture.startswith("gemma"):
        return range(len(tokens))
    if scores is None or len(scores) != len(tokens):
        why = "has a vocabulary without merges, and without a score for each token"
        raise DamagedModel(metadata.model, metadata.file, why)
    return [-score for score in scores]


def implied_merges(vocabulary: dict[str, int], ranks: Sequence[float]) -> list[tuple[str, str]]:
    """Return the merges by which tokens are made of shorter ones, in order.

    SentencePiece merges the pair whose token has the highest score, wherever it may be cut.
    """
    found = []
    for token, index in vocabulary.items():
        rank = ranks[index]
        for cut in range(1, len(token)):
            left = vocabulary.get(token[:cut])
            right = None if left is None else vocabulary.get(token[cut:])
            if right is not None:
                found.append((rank, left, right, token[:cut], token[cut:]))
    found.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in found]


def _finished(
    metadata: Metadata, tokens: Sequence[str], tokenizer: Tokenizer, bos: bool
) -> PreTrainedTokenizerBase:
    """Return the tokenizer with its special tokens and its chat template."""
    kinds = metadata.numbers(f"{PREFIX}token_type") or []
    known = [token if tokenizer.token_to_id(token) == at else "" for at, token in enumerate(tokens)]
    tokenizer.add_special_tokens(_added(known, kinds, CONTROL, special=True))
    tokenizer.add_tokens(_added(known, kinds, USER_DEFINED, special=False))
    special = {}
    for name, key in SPECIAL_TOKENS.items():
        index = metadata.index(f"{PREFIX}{key}", len(tokens))
        if index is not None:
            special[name] = tokens[index]
    begins = [("bos_token", metadata.flag(f"{PREFIX}add_bos_token", bos))]
    ends = [("eos_token", metadata.flag(f"{PREFIX}add_eos_token", False))]
    before = [special[name] for name, added in begins if added and name in special]
    behind = [special[name] for name, added in ends if added and name in special]
    if before or behind:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *behind],
            pair=[*before, "$A", *behind, *before, "$B", *behind],
            special_tokens=[(each, tokens.index(each)) for each in {*before, *behind}],
        )
    template = metadata.text(TEMPLATE, "")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template or None, **special
    )


def _added(
    tokens: Sequence[str], kinds: Sequence[float], kind: int, special: bool
) -> list[AddedToken]:
    return [
        AddedToken(token, normalized=False, special=special)
        for token, own in zip(tokens, kinds, strict=False)
        if own == kind and token
    ]
