"""``swarm distill``: write texts, train a head on them, report, and save it."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from swarm.client.sync import BlockingClient
from swarm.distill.author import SwarmAuthor
from swarm.distill.batch_loss import Lags
from swarm.distill.collecting import AT_ONCE, Author, Enough, collect
from swarm.distill.corpus import Corpus
from swarm.distill.frozen import Frozen, frequent_tokens
from swarm.distill.layout import Origin, save_head
from swarm.distill.prompts import prompt_ids
from swarm.distill.report import Report, measure, measure_draft
from swarm.distill.settings import DistillSettings
from swarm.distill.target import LocalTarget
from swarm.distill.text_files import read_texts
from swarm.distill.texts import TargetText, WrittenText
from swarm.distill.trainable_head import TrainableHead, shape_for
from swarm.distill.training import Recipe, Training, TrainingProgress
from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import SMALL_WEIGHTS
from swarm.model.device import choose_device, has_bfloat16
from swarm.model.folder import CONFIG_FILE, read_json
from swarm.terminal.progress import ShowProgress
from swarm.util.files import remove_unfinished
from swarm.util.prompt_files import Prompt

CORPUS = "texts"
TRAINING = "training.pt"
REPORT = "report.json"
HELD_OUT = 20  # one text of so many is held out
MOST_HELD_OUT = 200  # texts
WRITING_SHARE = 0.45  # of the time, at most
SCALE_TEXTS = 50  # that the scale of features is taken from
DISK_SHARE = 0.9  # of the free disk that states may take
WITH_PROMPT = 2  # tokens of a text for each one that the target writes; an estimate
LEAST_LAGS = 16  # of the report
LONGEST = 2048  # tokens of an earlier text


def distill(settings: DistillSettings, prompts: Iterable[Prompt], show: ShowProgress) -> Report:
    """Make a head, and return how it drafts on texts that it did not learn from.

    Args:
        prompts: the same ones each time; ignored if there are earlier texts.

    Raises:
        ConfigError: for a folder that holds something else, or a disk without room.
        SwarmError: what `Checkpoint.open`, `SwarmClient` and `read_texts` raise.
    """
    checkpoint = Checkpoint.open(settings.model)
    check_folder(settings.out, checkpoint.fingerprint)
    remove_unfinished(settings.out)
    corpus = Corpus(settings.out / CORPUS, checkpoint.fingerprint, checkpoint.hidden_size)
    check_room(settings, corpus)
    began = time.monotonic()
    fill(corpus, settings, checkpoint, prompts, show)
    texts = list(corpus)
    held_out = texts[::HELD_OUT][:MOST_HELD_OUT]
    learned = [text for at, text in enumerate(texts) if at % HELD_OUT]
    if not learned:
        problem = f"a head needs at least two, and there are {len(texts)}; give more, or prompts"
        raise ConfigError("texts", problem)
    frozen = load_frozen(settings, checkpoint, learned)
    head = new_head(checkpoint, frozen, learned)
    seconds = settings.minutes * 60
    left = max(seconds - (time.monotonic() - began), seconds * (1 - WRITING_SHARE))
    training = Training(head, frozen, Recipe(left, settings.passes, lags=Lags(settings.lag)))
    state = settings.out / TRAINING
    if state.is_file():
        training.resume(state)

    def learning(progress: TrainingProgress) -> None:
        kept = " ".join(f"{rate:.2f}" for rate in progress.acceptance[:4])
        show("training", progress.share, f"loss {progress.loss:.3f}, kept {kept}")

    training.run(learned, state, learning)
    origin = Origin(checkpoint.name, checkpoint.fingerprint, checkpoint.vocab_size)
    save_head(head, frozen, origin, settings.out)
    lags = max(settings.lag, LEAST_LAGS)
    report = Report(
        head=measure(head, held_out, frozen, lags),
        head_weights=head.shape.weights + frozen.lm_head.numel(),
        texts=len(texts),
        written=corpus.written,
        passes=training.passes,
    )
    if settings.compare is not None:
        compared, weights = measure_draft(settings.compare, held_out, lags, checkpoint.vocab_size)
        report = replace(report, draft=compared, draft_weights=weights)
    (settings.out / REPORT).write_text(json.dumps(report.as_dict(), indent=2) + "\n", "utf-8")
    return report


def check_folder(out: Path, fingerprint: str) -> None:
    """Raise ConfigError if a folder holds anything else than a head for this target."""
    config = out / CONFIG_FILE
    if config.is_file() and read_json(str(out), config).get("target_fingerprint") != fingerprint:
        raise ConfigError("out", f"{out} holds another model; give a folder of its own")


def check_room(settings: DistillSettings, corpus: Corpus) -> None:
    """Raise ConfigError if the disk has no room for the states of all tokens."""
    missing = max(0, settings.tokens - corpus.written)
    token_bytes = corpus.token_bytes * WITH_PROMPT
    needed = missing * token_bytes
    free = shutil.disk_usage(corpus.folder).free
    if needed > DISK_SHARE * free:
        fitting = int(DISK_SHARE * free / token_bytes)
        problem = (
            f"states of {missing:,} tokens take up to {needed / 1e9:.1f} GB, and the disk has"
            f" {free / 1e9:.1f}; give at most {fitting:,}"
        )
        raise ConfigError("tokens", problem)


def fill(
    corpus: Corpus,
    settings: DistillSettings,
    checkpoint: Checkpoint,
    prompts: Iterable[Prompt],
    show: ShowProgress,
) -> None:
    """Fill a corpus as the settings say."""
    if corpus.written >= settings.tokens:
        return
    if settings.texts is not None:
        target: LocalTarget | None = None  # loaded if there is something to read
        written = read_texts(settings.texts, checkpoint.tokenizer(), LONGEST)
        unread = islice(written, corpus.texts, None)
        for group in _groups(unread, settings.tokens - corpus.written):
            if target is None:
                target = LocalTarget.load(
                    settings.model, checkpoint, settings.device, settings.writing
                )
            corpus.append(list(target.read(group)))
            share = min(1.0, corpus.written / settings.tokens)
            show("reading", share, f"{corpus.written:,} tokens")
        return

    def writing(share: float, rate: float) -> None:
        show("writing", share, f"{rate:,.0f} tokens/s")

    ids = prompt_ids(prompts, checkpoint, settings.writing.max_new_tokens)
    enough = Enough(settings.tokens, settings.minutes * 60 * WRITING_SHARE)
    with author_of(settings, checkpoint, corpus.texts) as author:
        collect(corpus, author, ids, enough, writing)


@contextlib.contextmanager
def author_of(settings: DistillSettings, checkpoint: Checkpoint, seed: int) -> Iterator[Author]:
    """Yield the target: in this process, or behind a swarm."""
    writing = replace(settings.writing, seed=settings.writing.seed + seed)
    if settings.network is None:
        yield LocalTarget.load(settings.model, checkpoint, settings.device, writing)
        return
    client = BlockingClient(
        settings.model, network=settings.network, identity=settings.identity, head="local"
    )
    with client:
        yield SwarmAuthor(client, writing)


def _groups(texts: Iterator[WrittenText], tokens: int) -> Iterator[list[WrittenText]]:
    """Yield texts in groups of a part's size, until there are ``tokens``."""
    group: list[WrittenText] = []
    taken = 0
    for text in texts:
        group.append(text)
        taken += len(text.tokens) - text.prompt
        if len(group) == AT_ONCE or taken >= tokens:
            yield group
            group = []
        if taken >= tokens:
            return
    if group:
        yield group


def load_frozen(
    settings: DistillSettings, checkpoint: Checkpoint, texts: Sequence[TargetText]
) -> Frozen:
    """Return the target's ends, with the rows of the tokens that it wrote most often."""
    ends = 2 * checkpoint.vocab_size * checkpoint.hidden_size
    device = choose_device(settings.device, ends)
    rough = ends >= SMALL_WEIGHTS and has_bfloat16(device)
    frozen = Frozen.load(checkpoint, torch.bfloat16 if rough else torch.float32, device)
    always = checkpoint.eos_token_ids
    return frozen.keeping(frequent_tokens(texts, settings.vocab, always))


def new_head(checkpoint: Checkpoint, frozen: Frozen, texts: Sequence[TargetText]) -> TrainableHead:
    """Return a head that has not learned anything."""
    torch.manual_seed(0)
    states = torch.cat([text.states for text in texts[:SCALE_TEXTS]])
    feature_scale = float(frozen.features(states).square().mean().sqrt())
    embedding_scale = float(frozen.embedding.float().square().mean().sqrt())
    head = TrainableHead(shape_for(checkpoint), embedding_scale, feature_scale)
    return head.to(frozen.lm_head.device)
