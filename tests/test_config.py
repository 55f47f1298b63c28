from pathlib import Path

import pytest

from swarm.config import Network, create_network_key, load_network, load_network_key, state_dir
from swarm.errors import ConfigError, IdentityError
from swarm.identity import Identity

ID = "12D3KooWRHdv39CS4pr2WAuFzmzJzfNbJyequC8N2mtYNiEyk3xd"  # any, but always the same one
A, B, C = (f"/ip4/127.0.0.1/tcp/{port}/p2p/{ID}" for port in (4001, 4002, 4003))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bootstrap.toml"
    path.write_text(f'network = "from-file"\nbootstrap = ["{A}"]\n')
    return path


def test_arguments_beat_the_environment_beats_the_file(file: Path) -> None:
    env = {"SWARM_BOOTSTRAP": f"{B}, {C}", "SWARM_NETWORK": "from-env"}
    assert load_network(file=file, env={}) == Network("from-file", (A,))
    assert load_network(file=file, env=env) == Network("from-env", (B, C))
    assert load_network(file=file, env=env, name="argument", bootstrap=[C]) == Network(
        "argument", (C,)
    )
    assert load_network(file=file, env={"SWARM_BOOTSTRAP": f" {B}  {C}\n"}) == Network(
        "from-file", (B, C)
    )
    assert load_network(file=file, env={"SWARM_BOOTSTRAP": " ", "SWARM_NETWORK": ""}) == Network(
        "from-file", (A,)
    )


def test_the_file_is_the_named_one_or_the_nearest(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_network(env={"SWARM_CONFIG": str(file)}).name == "from-file"
    assert load_network(env={}) == Network("swarm-main")  # the one shipped with the project
    user_file = tmp_path / "config" / "swarm" / "bootstrap.toml"
    user_file.parent.mkdir(parents=True)
    user_file.write_text('network = "users"')
    assert load_network(env={}).name == "users"
    (elsewhere / "bootstrap.toml").write_text('network = "here"')
    assert load_network(env={}).name == "here"


@pytest.mark.parametrize(
    "address",
    [
        A,
        f"/dns4/boot.example.org/tcp/31337/p2p/{ID}",
        f"/ip6/::1/tcp/1/p2p/{ID}",
    ],
)
def test_an_address_that_can_work_is_taken(address: str) -> None:
    assert Network("net", (address,)).bootstrap == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1/tcp/4001",
        f"/ip4/127.0.0.1/tcp/0/p2p/{ID}",
        f"/ip4/127.0.0.1/tcp/65536/p2p/{ID}",
        f"/ip4/localhost/tcp/1/p2p/{ID}",
        f"/ip6/127.0.0.1/tcp/1/p2p/{ID}",
        f"/ip4/127.0.0.1/udp/1/p2p/{ID}",
        f"/dns4/a,b/tcp/1/p2p/{ID}",
        f"/ip4/127.0.0.1/tcp/1/p2p/{ID}x",
        f"{A}\n",
    ],
)
def test_an_address_that_cannot_work_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="bootstrap") as caught:
        Network("net", (address,))
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize("name", ["", "Upper", "a" * 33, "a/b", "name\n"])
def test_a_network_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(ConfigError, match="network"):
        Network(name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("network = ", "not valid TOML"),
        ("network = 5", "is not a name"),
        ('bootstrap = "one"', "list of strings"),
        ("bootstrap = [1]", "list of strings"),
        ("bootstraps = []", "unknown setting 'bootstraps'"),
        ("network_key_file = 5", "name of a file"),
        ("members = 5", "list of peer ids"),
        ('members = ["me"]', "not a peer id"),
    ],
)
def test_a_broken_file_is_named(file: Path, content: str, problem: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_network(file=file, env={})
    assert str(file) in str(caught.value)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_network(env={"SWARM_CONFIG": str(tmp_path / "none.toml")})


def test_state_lives_where_the_user_says(tmp_path: Path) -> None:
    assert state_dir({"SWARM_HOME": str(tmp_path)}) == tmp_path
    assert state_dir({}).name == "swarm"


def test_a_private_swarms_key_and_members_come_from_files(file: Path, tmp_path: Path) -> None:
    keys = [tmp_path / f"{each}.key" for each in ("in-file", "in-env", "argument")]
    for path in keys:
        create_network_key(path)
    assert keys[0].stat().st_mode & 0o777 == 0o600
    made = [load_network_key(path) for path in keys]
    assert len(set(made)) == 3
    file.write_text(f'network_key_file = "in-file.key"\nmembers = ["{ID}"]\n')
    in_file = load_network(file=file, env={})
    assert (in_file.key, in_file.members) == (made[0], {ID})
    assert repr(made[0]) not in repr(in_file)
    env = {"SWARM_NETWORK_KEY_FILE": str(keys[1])}
    assert load_network(file=file, env=env).key == made[1]
    assert load_network(file=file, env=env, key_file=keys[2]).key == made[2]
    assert load_network(env={"SWARM_CONFIG": str(file)}).is_open is False

    (tmp_path / "members.txt").write_text(f"# the office\n{ID}  # mine\n\n")
    file.write_text('members = "members.txt"\n')
    listed = load_network(file=file, env={})
    assert listed.admits(ID)
    listed.check_member(ID)
    stranger = Identity.generate().peer_id
    assert not listed.admits(stranger)
    with pytest.raises(ConfigError, match=f"does not name us; add {stranger}"):
        listed.check_member(stranger)
    (tmp_path / "nobody.txt").write_text("")
    assert (
        load_network(file=file, env={}, members_file=tmp_path / "nobody.txt").members == frozenset()
    )


def test_without_a_key_and_a_list_anybody_may_join(file: Path) -> None:
    network = load_network(file=file, env={})
    assert network.is_open
    assert network.admits(ID)


def test_a_network_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "network.key"
    with pytest.raises(IdentityError, match="cannot read"):
        load_network_key(path)
    create_network_key(path)
    with pytest.raises(IdentityError, match="is there already"):
        create_network_key(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_network_key(path)
    path.chmod(0o600)
    path.write_text("secret")
    with pytest.raises(IdentityError, match="new-network-key"):
        load_network_key(path)
    with pytest.raises(ConfigError, match="32"):
        Network("net", key=b"short")
    with pytest.raises(ConfigError, match="peer id"):
        Network("net", members=frozenset({"me"}))
