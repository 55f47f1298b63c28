"""The tokenizer that the demo models share: byte-level BPE, in which every digit is one token."""

from itertools import chain, islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from swarm.demo.problems import drills, problems

VOCAB_SIZE = 768
START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"

# A digit | an operator with its spaces | a word with the space before it | the rest.
_PIECES = r"\d| [-+*/=] | ?\p{L}+| ?[^\s\p{L}\d]+|\s+"

# Only the last question of a chat: the models were trained on single problems, and an earlier one
# confuses them.
CHAT_TEMPLATE = """\
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list -%}
{{- bos_token ~ 'Problem: ' ~ asked[-1].content.strip().removeprefix('Problem:').strip() \
~ '\\nSolution:' -}}
"""


def train_tokenizer(seed: int = 0, texts: int = 20_000) -> PreTrainedTokenizerFast:
    """Learn the merges from training problems.

    Any text can be encoded: unknown words fall back to bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = (problem.text for problem in islice(problems(seed, held_out=False), texts))
    tokenizer.train_from_iterator(chain(corpus, islice(drills(seed), texts // 10)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
