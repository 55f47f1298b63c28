"""API keys come from a file and from the environment, and never by accident."""

import pytest

from swarm.errors import ConfigError
from swarm.gateway.keys import VARIABLE, ApiKeys, Owners

ONE, OTHER = "a" * 16, "b" * 32


def test_keys_of_the_file_and_of_the_environment_are_valid(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{ONE}\n")
    monkeypatch.setenv(VARIABLE, f"{OTHER}, ")
    keys = ApiKeys.load(file)
    assert keys
    assert all(keys.admit(f"Bearer {key}") for key in (ONE, OTHER))
    for wrong in (
        None,
        "",
        ONE,
        f"Basic {ONE}",
        f"Bearer {ONE}x",
        "Bearer ",
        "Bearer # ours",
        "Bearer \udcff",
    ):
        assert not keys.admit(wrong)


def test_without_keys_everybody_may_ask(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    keys = ApiKeys.load()
    assert not keys
    assert keys.admit(None)


@pytest.mark.parametrize("key", ["short", "a" * 15, "with a space in it", "\u00fcmlaut" * 4])
def test_a_key_that_is_no_good_is_refused(key):
    with pytest.raises(ConfigError, match="at least 16"):
        ApiKeys([key])


def test_a_file_without_keys_does_not_open_the_gateway(tmp_path):
    (tmp_path / "empty").write_text("# none\n")
    for file, words in (("empty", "holds no key"), ("absent", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            ApiKeys.load(tmp_path / file)


def test_each_key_owns_texts_of_its_own():
    owners = Owners(ApiKeys([ONE, OTHER]), local=True)
    one, other = (owners.of(f"Bearer {key}") for key in (ONE, OTHER))
    assert one == owners.of(f"bearer  {ONE} ") != other
    assert ONE not in one, "a key is not kept"
    assert None not in (one, other)


@pytest.mark.parametrize(("local", "owner"), [(True, ""), (False, None)])
def test_without_keys_texts_are_someones_where_only_this_host_asks(local, owner):
    assert Owners(ApiKeys(), local).of(None) == owner
