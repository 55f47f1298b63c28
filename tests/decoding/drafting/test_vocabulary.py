"""Translations between byte-level BPE, sentencepiece and whole-word tokenizers."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from swarm.decoding.drafting.vocabulary import SameVocabulary, Translation

LINES = [
    "the quick brown fox jumps over the lazy dog",
    "a friend of the dog is a friend of the fox",
    "größer als der Fuchs ist der Hund, naïve café",
    "over and over the quick dog jumps, and the fox is lazy",
]
TEXT = "the lazy dog is größer, and a friend jumps over the café 世"


def wrap(tokenizer, opens=False, **specials):
    """As transformers has it; ``opens``: it puts its bos token before every text."""
    if opens:
        bos = specials["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **specials
    )


def byte_level(merges, specials=("<|end|>",), **named):
    """Byte-level BPE with a number of merges, learned from LINES."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(specials) + merges,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return wrap(tokenizer, **{"eos_token": specials[0], **named})


def sentencepiece(opens=True):
    """As Llama 2's: a mark for the space, bytes as the last resort, <s> before each text."""
    words = {f"\u2581{word}" for line in LINES for word in line.replace(",", " ,").split()}
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(
        words | {letter for line in LINES for letter in line if letter != " "} | {"\u2581"}
    )
    tokenizer = Tokenizer(
        models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return wrap(tokenizer, opens=opens, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def words_of(words):
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrap(tokenizer, unk_token="<unk>")


def translation(draft, target, padding=0):
    return Translation(draft, target, len(target) + padding)


def sayable(translated, draft):
    """Ids of the target that a draft with a full head can say."""
    return translated.project(torch.zeros(1, len(draft)))[0].isfinite().nonzero().flatten().tolist()


SMALL, LARGE, PIECES = byte_level(20), byte_level(120), sentencepiece()


def test_a_smaller_byte_level_vocabulary_is_wholly_in_a_larger_one():
    translated = translation(SMALL, LARGE)
    assert translated.overlap == 1.0
    # the end of text is no ordinary token
    assert translated.coverage == (len(SMALL) - 1) / (len(LARGE) - 1)
    for token in sayable(translated, SMALL):
        [own] = translated.encode([token])
        assert SMALL.convert_ids_to_tokens(own) == LARGE.convert_ids_to_tokens(token)


@pytest.mark.parametrize(
    ("draft", "target"),
    [(SMALL, LARGE), (LARGE, SMALL), (PIECES, LARGE), (LARGE, PIECES), (SMALL, PIECES)],
    ids=["small-large", "large-small", "pieces-bytes", "bytes-pieces", "small-pieces"],
)
def test_the_draft_reads_the_same_text(draft, target):
    translated, ids = translation(draft, target), target.encode(TEXT, add_special_tokens=False)
    assert draft.decode(translated.encode(ids)).strip() == target.decode(ids).strip() == TEXT


@pytest.mark.parametrize(("draft", "target"), [(LARGE, SMALL), (PIECES, LARGE), (SMALL, PIECES)])
def test_the_encoding_of_a_prefix_is_a_prefix(draft, target):
    translated, ids = translation(draft, target), target.encode(TEXT)
    whole = translated.encode(ids)
    for length in range(len(ids) + 1):
        part = translated.encode(ids[:length])
        assert whole[: len(part)] == part


@pytest.mark.parametrize(("draft", "target"), [(SMALL, LARGE), (PIECES, LARGE), (LARGE, PIECES)])
def test_what_the_draft_can_say_is_one_token_of_its_own(draft, target):
    translated = translation(draft, target)
    owns = [translated.encode([token]) for token in sayable(translated, draft)]
    assert all(len(own) == 1 for own in owns)
    assert len({own for [own] in owns}) == len(owns)


def test_byte_level_and_sentencepiece_meet_in_what_their_tokens_stand_for():
    translated = translation(PIECES, LARGE)
    vocabulary, pieces = LARGE.get_vocab(), PIECES.get_vocab()
    for written, piece in [
        ("Ġthe", "▁the"),
        ("Ġ", "▁"),
        ("x", "x"),
        ("Ċ", "<0x0A>"),
        ("Ã", "<0xC3>"),
    ]:
        assert translated.encode([vocabulary[written]]) == [pieces[piece]]


def test_a_character_that_has_a_token_is_not_spelled_by_its_byte():
    translated = translation(PIECES, LARGE)
    assert PIECES.get_vocab()["<0x78>"] not in [
        translated.encode([t])[0] for t in sayable(translated, PIECES)
    ]
    back = translation(LARGE, PIECES)
    byte_of_x = PIECES.get_vocab()["<0x78>"]
    assert back.encode([byte_of_x]) == [LARGE.get_vocab()["x"]]
    assert byte_of_x not in sayable(back, LARGE)


def test_a_token_of_the_target_alone_is_read_as_the_fewest_of_the_draft():
    longest = max(set(LARGE.get_vocab()) - set(SMALL.get_vocab()), key=len)
    own = translation(SMALL, LARGE).encode([LARGE.get_vocab()[longest]])
    assert SMALL.decode(own) == LARGE.decode([LARGE.get_vocab()[longest]])
    assert 1 < len(own) <= len(SMALL.encode(SMALL.decode(own))) < len(longest)


def test_half_a_character_is_read_as_its_bytes():
    [first, *_] = SMALL.encode("世")
    assert SMALL.decode([first]) == "\ufffd"
    own = translation(PIECES, SMALL).encode([first])
    assert PIECES.convert_ids_to_tokens(own) == ["<0xE4>"]


def test_what_cannot_be_spelled_the_draft_does_not_see():
    with_call = byte_level(20, ("<|end|>", "<|call|>"))
    translated = translation(SMALL, with_call)
    x, call = (with_call.get_vocab()[token] for token in ("x", "<|call|>"))
    assert translated.encode([x, call, x, 10_000]) == [SMALL.get_vocab()["x"]] * 2
    assert call not in sayable(translated, SMALL)


def test_a_token_that_was_added_as_text_is_read_as_text():
    target = byte_level(20)
    target.add_tokens(["<think>", "größer\u2581"])
    translated = translation(SMALL, target)
    for text in ("<think>", "größer\u2581"):
        assert SMALL.decode(translated.encode([target.get_vocab()[text]])) == text


def test_special_tokens_are_the_same_if_special_in_both():
    specials = ("<|end|>", "<|user|>")
    plain = byte_level(20)
    plain.add_tokens(["<|user|>"])
    user = byte_level(60, specials).get_vocab()["<|user|>"]
    both = translation(byte_level(20, specials), byte_level(60, specials))
    assert both.encode([user]) == [byte_level(20, specials).get_vocab()["<|user|>"]]
    assert translation(plain, byte_level(60, specials)).encode([user]) == []


def test_the_ends_of_text_are_the_same_however_they_are_written():
    draft, target = byte_level(20, ("</s>", "<|user|>")), byte_level(60, ("<|eot|>", "</s>"))
    translated = translation(draft, target)
    assert translated.encode([target.eos_token_id]) == [draft.eos_token_id]
    assert target.eos_token_id in sayable(translated, draft)
    # Its end now means the target's; the token of the target that is written like it is another.
    assert translated.encode([target.get_vocab()["</s>"]]) == []


def test_an_end_of_text_that_the_draft_knows_stays_its_own():
    draft = byte_level(20, ("<|eot|>", "<|im_end|>"))
    target = byte_level(60, ("<|im_end|>", "<|eot|>"))
    translated = translation(draft, target)
    assert translated.encode([target.eos_token_id]) == [draft.get_vocab()["<|im_end|>"]]
    assert translated.encode([target.get_vocab()["<|eot|>"]]) == [draft.eos_token_id]


def test_a_draft_that_opens_its_texts_does_so_in_place_of_the_target():
    target = byte_level(20, ("<|end|>", "<s>"), bos_token="<s>", opens=True)
    translated = translation(PIECES, target)
    assert translated.opening == (PIECES.bos_token_id,)
    assert translated.encode(target.encode("x")) == [PIECES.get_vocab()["x"]]
    assert target.bos_token_id not in sayable(translated, PIECES)
    assert translation(sentencepiece(opens=False), target).opening == ()


def test_words_meet_words_only():
    words = ["<unk>", "the", "dog", "thedog", "x"]
    permuted = translation(words_of(words[::-1]), words_of(words))
    assert (permuted.coverage, permuted.overlap) == (1.0, 1.0)
    fewer = translation(words_of([*words[:3], "cat"]), words_of(words))
    assert (fewer.coverage, fewer.overlap) == (2 / 4, 2 / 3)
    assert fewer.encode([1, 3, 2]) == [1, 2]  # "thedog" is no "the" and "dog"
    assert (
        translation(words_of(words), LARGE).overlap
        == translation(LARGE, words_of(words)).overlap
        == 0.0
    )


def test_logits_are_projected_into_the_targets_tokens():
    words = ["<unk>", "the", "dog", "fox"]
    translated = translation(words_of(["<unk>", "fox", "cat", "the"]), words_of(words), padding=2)
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0], [0.5, 1.5, 2.5, 3.5, 9.0]])
    inf = torch.inf
    expected = [[0.0, 3.0, -inf, 1.0, -inf, -inf], [0.5, 3.5, -inf, 1.5, -inf, -inf]]
    assert translated.project(logits).tolist() == expected
    # A head without a row for "the".
    assert translated.project(logits[:, :3]).tolist() == [
        [row[0], -inf, *row[2:]] for row in expected
    ]


def test_tokens_that_the_target_has_no_row_for_are_never_said():
    words = ["<unk>", "the", "dog", "fox"]
    translated = Translation(words_of(words[::-1]), words_of(words), size=3)
    assert translated.project(torch.zeros(1, 4)).isfinite().tolist() == [[True, True, True]]


@pytest.mark.parametrize(
    ("size", "expected"), [(2, [0.0, 1.0]), (3, [0.0, 1.0, 2.0]), (4, [0.0, 1.0, 2.0, -torch.inf])]
)
def test_one_vocabulary_with_heads_padded_differently(size, expected):
    same = SameVocabulary(size)
    assert same.project(torch.tensor([[0.0, 1.0, 2.0]])).tolist() == [expected]
    assert (same.encode((3, 1, 2)), same.opening) == ([3, 1, 2], ())
