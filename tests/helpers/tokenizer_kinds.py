"""Small tokenizers of all kinds that models come with, for tests of prompts and of detokenizing."""

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from swarm.demo.tokenizer import train_tokenizer

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "▁"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'<>|/_[]é日\ufffd"
PIECES = (f"{SPACE}t", f"{SPACE}th", f"{SPACE}the", "in", "ing", SPACE * 2)
WORDS = ("do", "not", "n", "'", "t", "##t", "s", "##s", "m", ".", "!", "hi", "##hi", "日")


def byte_level() -> PreTrainedTokenizerFast:
    """Like GPT-2's and most later ones: a token is any bytes, even a part of a character."""
    return train_tokenizer(texts=100)


def byte_fallback() -> PreTrainedTokenizerFast:
    """Like Llama 2's and Mistral's: a text begins with a space that is not shown.

    A character without a token is spelled by tokens of one byte each.
    """
    backend = _sentencepiece()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), backend.normalizer])
    backend.decoder = decoders.Sequence([*_sentencepiece_decoders(), decoders.Strip(" ", 1, 0)])
    return _named(backend)


def byte_fallback_as_it_is() -> PreTrainedTokenizerFast:
    """Like Gemma's: as `byte_fallback`, but a text begins as it is written."""
    return _named(_sentencepiece())


def word_pieces() -> PreTrainedTokenizerFast:
    """Like BERT's, which also removes spaces when it decodes."""
    named = [UNKNOWN, START, END, *WORDS]
    backend = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(named)}, unk_token=UNKNOWN)
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return _named(backend, clean_up_tokenization_spaces=True)


def words() -> PreTrainedTokenizerFast:
    """Whole words, the first of which has no space before it."""
    backend = Tokenizer(
        models.WordLevel({END: 0, f"{SPACE}one": 1, f"{SPACE}two": 2, "s": 3}, unk_token=END)
    )
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


KINDS: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    kind.__name__: kind
    for kind in (byte_level, byte_fallback, byte_fallback_as_it_is, word_pieces, words)
}


def _sentencepiece() -> Tokenizer:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    named = [UNKNOWN, START, END, *bytes_, SPACE, *LETTERS, *PIECES]
    merges = [(piece[:-1], piece[-1]) for piece in PIECES]
    vocabulary = {token: i for i, token in enumerate(named)}
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.decoder = decoders.Sequence(_sentencepiece_decoders())
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, vocabulary[START])]
    )
    return backend


def _sentencepiece_decoders() -> list[decoders.Decoder]:
    return [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]


def _named(backend: Tokenizer, **settings: bool) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=START, eos_token=END, unk_token=UNKNOWN, **settings
    )
