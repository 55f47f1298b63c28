"""Units: what systemd understands is what was meant."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from peers.ops.systemd_unit import MARK, CannotQuote, Unit

HANG_S = 180
NASTY = ["a b", "50%", "$HOME", 'say "x"', "back\\slash", "it's", ";", "", "naïve"]


def unit(*command: str, **changes: object) -> Unit:
    return Unit(
        "a test", ("/bin/echo", *command), **({"folder": Path("/tmp"), "leave_s": 15.0} | changes)
    )  # type: ignore[arg-type]


def value(text: str, name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found


def test_words_are_quoted_as_systemd_reads_them() -> None:
    line = value(unit(*NASTY).text(), "ExecStart")
    assert line == r"""/bin/echo "a b" 50%% $$HOME "say \"x\"" "back\\slash" "it's" ";" "" naïve"""


def test_variables_are_quoted_as_one_word_in_which_a_dollar_is_nothing_special() -> None:
    text = unit(environment={"SWARM_HOME": "/my $ home", "SWARM_NETWORK": "100%"}).text()
    assert re.findall(r"^Environment=(.*)$", text, re.MULTILINE) == [
        '"SWARM_HOME=/my $ home"',
        "SWARM_NETWORK=100%%",
    ]


def test_leaving_in_order_is_waited_for() -> None:
    assert int(value(unit(leave_s=70.0).text(), "TimeoutStopSec")) > 70


@pytest.mark.parametrize("word", ["a\nExecStartPre=/bin/false", "\x1b[31m", "a\u2028b"])
def test_no_word_can_begin_a_line_of_its_own(word: str) -> None:
    with pytest.raises(CannotQuote, match="control characters"):
        unit(word).text()
    with pytest.raises(CannotQuote):
        unit(environment={"SWARM_HOME": word}).text()


def test_a_unit_says_who_wrote_it() -> None:
    assert unit().text().splitlines()[0] == MARK


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    file = tmp_path / "swarm-peer.service"
    file.write_text(unit(*NASTY, environment={"SWARM_HOME": "/my $ home"}).text())
    command = ["systemd-analyze", "--user", "verify", str(file)]
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=env, check=False
    )
    unknown_before_254 = re.compile(r".*Unknown key (name )?'(RestartSteps|RestartMaxDelaySec)'.*")
    said = [
        line
        for line in done.stderr.splitlines()
        if file.name in line and not unknown_before_254.fullmatch(line)
    ]
    assert said == []
