"""The values that ``/set`` accepts and refuses."""

import pytest

from swarm.chat.settings import SETTINGS, NoSuchSetting, changed, listed
from swarm.errors import RequestError, RuleError, SamplingError, SwarmError
from swarm.request import Options, Request

VALUES = {
    "temperature": ("0.7", 0.7),
    "top-p": ("0.9", 0.9),
    "top-k": ("40", 40),
    "min-p": ("0.05", 0.05),
    "max-new-tokens": ("64", 64),
    "repetition-penalty": ("1.1", 1.1),
    "presence-penalty": ("0.2", 0.2),
    "frequency-penalty": ("0.3", 0.3),
    "seed": ("7", 7),
    "verify": ("adaptive:tau=0.5", "adaptive:tau=0.5"),
    "window": ("auto", "auto"),
    "depth": ("1", 1),
    "branches": ("2", 2),
    "lookup": ("on", True),
    "learn": ("off", False),
    "standby": ("off", False),
    "patience": ("5", 5.0),
}


def test_every_setting_reaches_the_request() -> None:
    assert VALUES.keys() == SETTINGS.keys()
    options = Options()
    for name, (word, _) in VALUES.items():
        options = changed(options, name, word)
    assert list(options.values()) == [value for _, value in VALUES.values()]
    Request.of(options)
    assert all(word in listed(options) for word, _ in VALUES.values())


@pytest.mark.parametrize(
    ("name", "word", "kind", "words"),
    [
        ("colour", "red", NoSuchSetting, "there is no setting 'colour'; there are temperature, "),
        ("temperature", "warm", NoSuchSetting, "'warm' is no temperature; give a number"),
        ("seed", "x", NoSuchSetting, "give none or a whole number"),
        ("window", "wide", NoSuchSetting, "give auto or a whole number"),
        ("lookup", "yes", NoSuchSetting, "give auto, on or off"),
        ("standby", "yes", NoSuchSetting, "give on or off"),
        ("temperature", "-1", SamplingError, "temperature"),
        ("temperature", "nan", SamplingError, "temperature"),
        ("max-new-tokens", "0", RequestError, "max_new_tokens = 0 is not possible"),
        ("verify", "lazy", RuleError, "the rules are strict"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    name: str, word: str, kind: type[SwarmError], words: str
) -> None:
    with pytest.raises(kind) as error:
        changed(Options(), name, word)
    assert words in str(error.value)
