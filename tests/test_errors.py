import copy
import dataclasses
import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peers
import swarm
from swarm import errors
from swarm.errors import (
    BatchFailed,
    CannotListen,
    ChainBroken,
    ChainSilent,
    ClockOff,
    ConfigError,
    ConstraintFailed,
    DamagedModel,
    DirectoryDown,
    DraftMismatch,
    ExitCode,
    IdentityError,
    Implausible,
    InvalidRecord,
    LocalError,
    MissingExtra,
    MissingLayers,
    ModelNotFound,
    NeedsHead,
    NetworkUnreachable,
    NoBootstrap,
    NoChatTemplate,
    OtherQuantization,
    PromptTooLong,
    RemoteViolation,
    RequestError,
    RuleError,
    SamplingError,
    SpanError,
    SwarmError,
    SwarmIncomplete,
    SwarmUnavailable,
    TemplateRefuses,
    UnsupportedArgument,
    UnsupportedModel,
    UsageError,
    WrongWeights,
)
from swarm.gateway.errors import BadRequest, Busy, ErrorReply, error_reply
from swarm.wire.faults import FaultCode

BASES = {UsageError, LocalError, NetworkUnreachable, SwarmUnavailable, RemoteViolation}
NO_MODULES = {"__main__", "start"}  # they run a command when they are imported

# an error, its sentence, the exit code of a command, and the gateway's answer: status and code
TABLE: list[tuple[SwarmError, str, int, int, str | None]] = [
    (ConfigError("port", "0 is no port"), "port: 0 is no port.", 2, 400, None),
    (
        RequestError("n", 0, "1 to 8"),
        "n = 0 is not possible; give 1 to 8",
        *(2, 400, None),
    ),
    (
        SamplingError("top_p", 2, "0 to 1"),
        "top_p = 2 is not possible; give 0 to 1",
        *(2, 400, None),
    ),
    (
        PromptTooLong(90, 20, 100),
        "the prompt has 90 tokens and 20 new ones are asked for, but the model's context ends at"
        " 100; shorten the prompt or ask for fewer new tokens",
        *(2, 400, "context_length_exceeded"),
    ),
    (
        NeedsHead("logits=True"),
        "logits=True needs the model's head on this computer, and a peer holds it; open the client"
        " with head='local' (--head local)",
        *(2, 400, None),
    ),
    (
        ConstraintFailed("it is too large"),
        "the constraint cannot be followed further (it is too large); give a simpler one",
        *(2, 400, None),
    ),
    (
        RuleError("lax", "the rules are strict"),
        "verification 'lax' is not possible: the rules are strict",
        *(2, 400, None),
    ),
    (
        TemplateRefuses("m", "roles must alternate"),
        "the chat template of m refuses this conversation: roles must alternate",
        *(2, 400, None),
    ),
    (
        UnsupportedArgument("num_beams", 4, "leave it out"),
        "num_beams = 4 is not possible: leave it out",
        *(2, 400, None),
    ),
    (
        UnsupportedArgument("past_key_values", [0] * 99, "leave it out"),
        "past_key_values = (list) is not possible: leave it out",
        *(2, 400, None),
    ),
    (
        SpanError(0, 4, "5 layers"),
        "The span of layers [0, 4) cannot run this: 5 layers.",
        *(2, 400, None),
    ),
    (
        IdentityError("key", "not a key, make one"),
        "key: not a key, make one.",
        *(5, 500, "internal_error"),
    ),
    (
        CannotListen("::1", 80, "taken"),
        "cannot listen on ::1:80 (taken); give another --port, or 0 for any",
        *(5, 500, "internal_error"),
    ),
    (
        ModelNotFound("m"),
        "Model 'm' was not found: it is neither a folder nor a model on the hub. Give a checkpoint"
        " folder, a GGUF file, or a Hugging Face model id.",
        *(5, 500, "internal_error"),
    ),
    (
        DamagedModel("m", "config.json", "is empty"),
        "Model 'm' cannot be read: config.json is empty. Fetch or copy that file again.",
        *(5, 500, "internal_error"),
    ),
    (
        UnsupportedModel("m", "it has two decoders"),
        "Model 'm' is not supported: it has two decoders. Choose another checkpoint.",
        *(5, 500, "internal_error"),
    ),
    (
        DraftMismatch("d", "t", 0.25, 0.5),
        "d cannot draft for t: they share 25% of the smaller vocabulary, and drafting needs 50%;"
        " give a draft model of the same family, or --draft none",
        *(5, 500, "internal_error"),
    ),
    (
        NoChatTemplate("m"),
        "m has no chat template, which says how a model is talked to; choose one that was made for"
        " conversations, or let it continue plain text with --raw",
        *(5, 500, "internal_error"),
    ),
    (
        MissingExtra("plots", "matplotlib", "plot", "leave out --plot"),
        "plots need matplotlib: install it with `pip install swarm[plot]`, or leave out --plot",
        *(5, 500, "internal_error"),
    ),
    (
        NoBootstrap(),
        "No bootstrap node is configured: name one with --bootstrap, SWARM_BOOTSTRAP or"
        " bootstrap.toml, or start your own with `swarm-peer bootstrap`.",
        *(3, 503, "no_directory"),
    ),
    (
        NoBootstrap(("/ip4/1.2.3.4", "/ip4/1.2.3.5")),
        "No bootstrap node answers (tried /ip4/1.2.3.4, /ip4/1.2.3.5): check that it runs and that"
        " its address and your network are right, and in a private swarm its key, too.",
        *(3, 503, "no_directory"),
    ),
    (
        DirectoryDown("it is away"),
        "The swarm's directory is not usable: it is away.",
        *(3, 503, "no_directory"),
    ),
    (
        ClockOff(-61.0, 1),
        "This computer's clock is 61 s behind that of the only node asked, so that they do not see"
        " each other's records: set it, for example by `sudo timedatectl set-ntp true`, and the"
        " rest goes on by itself.",
        *(3, 503, "no_directory"),
    ),
    (
        MissingLayers("m", ((0, 8),), 8, 0),
        "no peer serves m; start one with `swarm-peer join MODEL --layers 0:8`",
        *(4, 503, "missing_layers"),
    ),
    (
        MissingLayers("org/m", ((0, 8),), 8, 0),
        "no peer serves org/m; start one with `swarm-peer join org/m --layers 0:8`",
        *(4, 503, "missing_layers"),
    ),
    (
        MissingLayers("m", ((7, 8),), 8, 3, head=True),
        "no peer that answers serves the last layer of m and holds its LM head, which this client"
        " lacks; start one with `swarm-peer join MODEL --layers 7:8 --head`, or have the client"
        " hold the head itself (--head local)",
        *(4, 503, "missing_layers"),
    ),
    (
        MissingLayers("m", ((0, 2), (5, 6)), 8, 3),
        "no peer serves layers 0:2, 5:6 of m (it has 8; 3 peers answer); start a peer with"
        " `swarm-peer join MODEL --layers 0:2`",
        *(4, 503, "missing_layers"),
    ),
    (
        WrongWeights("m", "a" * 32, ("b" * 32,)),
        "the swarm serves m with other weights than yours (fingerprint bbbbbbbbbbbb, yours is"
        " aaaaaaaaaaaa); use the same model folder or revision as its peers",
        *(4, 503, "wrong_weights"),
    ),
    (
        OtherQuantization("m", "none", ("int8", "nf4")),
        "the swarm serves the weights of m not as they are, but in int8 and in nf4; if other texts"
        " will do, ask for that: --quantization int8",
        *(4, 503, "wrong_weights"),
    ),
    (
        ChainBroken("12D3KooWabcdefgh", (0, 4), "it left", FaultCode.DRAINING),
        "the peer ...abcdefgh (layers 0:4) failed: it left; run the command again, another route"
        " will be chosen if there is one",
        *(4, 503, "chain_broken"),
    ),
    (
        ChainSilent(2.0),
        "the chain has not answered for 2.0 s; run the command again",
        *(4, 503, "chain_broken"),
    ),
    (
        SwarmIncomplete("layers 0:4", 30.0),
        "peers have failed and no others took their place within 30 s (layers 0:4); go on later"
        " with the prompt and all tokens so far as the prompt, and the same seed",
        *(4, 503, "swarm_incomplete"),
    ),
    (
        BatchFailed((None, None), {1: ChainSilent(2.0)}),
        "1 of 2 generations failed, that of prompt 1 because the chain has not answered for 2.0 s;"
        " run the command again; `results` holds the others, `errors` says why by place",
        *(1, 503, "chain_broken"),  # of all exit codes, as the reasons may be of any kind
    ),
    (
        InvalidRecord("9 bytes"),
        "Not a valid directory record: 9 bytes.",
        *(1, 502, "remote_violation"),
    ),
    (
        Implausible("12D3KooWabcdefgh", (0, 4), "it is not finite"),
        "the peer ...abcdefgh (layers 0:4) failed: it is not finite; run the command again, another"
        " route will be chosen if there is one",
        *(4, 503, "chain_broken"),
    ),
]
ROWS = [pytest.param(*row, id=type(row[0]).__name__) for row in TABLE]
WORDS = "a/0ß☃%{}'\n\x1b"
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(WORDS, min_size=1, max_size=20),
    "object": st.integers() | st.text(WORDS, max_size=99) | st.lists(st.none()),
    "str | None": st.none() | st.text(WORDS, max_size=20),
    "int": st.integers(0, 1 << 40),
    "int | None": st.none() | st.integers(0, 143),
    "float": st.floats(0, 1e9),
    "float | None": st.none() | st.floats(0, 1e9),
    "bool": st.booleans(),
    "Path": st.just("/a/file"),
    "tuple[int, int] | None": st.none() | st.tuples(st.integers(0, 9), st.integers(10, 20)),
    "tuple[str, ...]": st.lists(st.text(WORDS, max_size=9), min_size=1, max_size=3).map(tuple),
    "tuple[int, int]": st.tuples(st.integers(0, 9), st.integers(10, 20)),
    "tuple[int, int, int]": st.tuples(*[st.integers(0, 9)] * 3),
    "tuple[int, int, int] | None": st.none() | st.tuples(*[st.integers(0, 9)] * 3),
    "tuple[tuple[int, int], ...]": st.just(((0, 3), (5, 6))),
    "FaultCode | None": st.none() | st.sampled_from(FaultCode),
    "tuple[Generation | None, ...]": st.just((None, None)),
    "Mapping[int, SwarmError]": st.just({0: ChainSilent(3.0)}),
}


def below(base: type[SwarmError]) -> Iterator[type[SwarmError]]:
    for each in base.__subclasses__():
        yield each
        yield from below(each)


@pytest.fixture(scope="module")
def every() -> set[type[SwarmError]]:
    """All errors of the project: each of its modules has been imported."""
    for package in (swarm, peers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] not in NO_MODULES:
                importlib.import_module(module.name)
    return {each for each in below(SwarmError) if each.__module__.startswith(("swarm.", "peers."))}


@pytest.mark.parametrize(("error", "sentence", "exit_code", "status", "code"), ROWS)
def test_a_public_error_has_its_sentence_its_exit_code_and_its_answer(
    error: SwarmError, sentence: str, exit_code: int, status: int, code: str | None
) -> None:
    assert str(error) == sentence
    assert error.exit_code == exit_code
    told = error_reply(error)
    assert (told.status, told.code) == (status, code)
    assert (told.retry_after_s is not None) == (status == 503)
    if isinstance(error, LocalError):
        assert error.args[0] not in told.message.split()  # it may be a path
    elif not isinstance(error, SwarmIncomplete):  # the gateway keeps no text, so it says less
        assert told.message == sentence


@pytest.mark.parametrize("error", [row[0] for row in TABLE], ids=lambda error: type(error).__name__)
def test_a_public_error_survives_pickling_and_copying(error: SwarmError) -> None:
    unharmed(error)


def test_the_table_has_every_public_error() -> None:
    public = {each for each in vars(errors).values() if isinstance(each, type)}
    assert {type(row[0]) for row in TABLE} == public - BASES - {SwarmError, ExitCode}
    assert {getattr(swarm, name) for name in swarm.__all__} & set(below(SwarmError)) <= public


def test_every_error_is_below_one_of_the_five_bases(every: set[type[SwarmError]]) -> None:
    assert set(SwarmError.__subclasses__()) == BASES
    for each in every - BASES:
        bases = BASES & set(each.__mro__)
        assert len(bases) == 1 or each is Implausible, each  # a peer of the chain broke its word


def test_every_error_makes_a_sentence_of_any_facts_and_survives_pickling(
    every: set[type[SwarmError]],
) -> None:
    leaves = sorted(every - BASES - {Busy}, key=lambda each: each.__qualname__)
    assert len(leaves) > 40
    built = {each: facts(each) for each in leaves}

    @given(st.data())
    def check(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(leaves))
        values = data.draw(built[kind])
        error = kind(*values)
        if "__post_init__" not in vars(kind):  # which may shorten or complete them
            assert error.args == values
        assert kind.__str__ is not Exception.__str__
        assert str(error)
        error_reply(error)
        unharmed(error)

    check()


def facts(kind: type[SwarmError]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Values for the constructor of an error."""
    types = [each.type for each in dataclasses.fields(kind) if each.init]
    names = [each if isinstance(each, str) else named(each) for each in types]
    return st.tuples(*(STRATEGIES[name.strip("\"'")] for name in names))


def named(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return text.replace("collections.abc.", "").replace("swarm.errors.bases.", "")


def unharmed(error: SwarmError) -> None:
    """Whether copies of an error are the same, and the sentence does not depend on who reads it."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert repr(again) == repr(error)
        assert repr(vars(again)) == repr(vars(error))


def test_what_a_generation_has_written_is_pickled_with_its_error() -> None:
    error = SwarmIncomplete("layers 0:4", 30.0)
    error.generation = "the text"  # type: ignore[assignment]
    assert pickle.loads(pickle.dumps(error)).generation == "the text"
    assert error.args == ("layers 0:4", 30.0)


def test_errors_are_hashable_and_differ_even_with_equal_facts() -> None:
    assert len({ChainSilent(1.0), ChainSilent(1.0)}) == 2


def test_a_bug_is_told_as_nothing_but_one() -> None:
    assert error_reply(ValueError("/home/key")) == error_reply(IdentityError("/home/key", "lost"))


@pytest.mark.parametrize("status", [400, 408, 413, 415])
def test_a_request_has_the_status_that_it_was_refused_with(status: int) -> None:
    told = error_reply(BadRequest("no", "model", "gone", status))
    assert told == ErrorReply(status, "model: no", "invalid_request_error", "gone", "model")


@pytest.mark.parametrize("code", FaultCode)
def test_a_fault_is_ours_or_theirs(code: FaultCode) -> None:
    broken = ChainBroken("12D3KooW", (0, 4), "", code)
    assert broken.is_failure == (
        code.value in ("wrong_model", "not_finite", "out_of_order", "next_unreachable", "internal")
    )
    assert broken.is_news == (code.value in ("wrong_layers", "draining"))
    assert code.is_violation == (code.value in ("bad_message", "out_of_order", "not_finite"))
    assert ChainBroken("12D3KooW", (0, 4), "").is_failure
