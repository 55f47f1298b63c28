"""The commands that pages tell their readers to type.

A block of code holds commands if its first word is a program of `PROGRAMS`. Words in capitals stand
for what a reader fills in: the `ADDRESS` of a bootstrap node, a `MODEL`, a `DRAFT` model. A block
is run as it stands, unless the HTML comment before it says why not: ``<!-- not run: it takes a GPU
-->``. The arguments of our own programs are checked in any case.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from docs.markdown import ROOT, Block, blocks, tokens
from peers.cli import app as swarm_peer
from swarm.cli.main import app as swarm
from swarm.demo import DRAFT, TARGET

OURS: Mapping[str, click.Group] = {"swarm": swarm, "swarm-peer": swarm_peer}
RUN = frozenset(
    {"cat", "curl", "echo", "export", "grep", "jq", "mkdir", "printf", "python", "python3"}
)
# These change the computer, or take what a test has not.
TOLD = frozenset(
    (
        *(
            "cd",
            "chmod",
            "docker",
            "git",
            "journalctl",
            "loginctl",
            "make",
            "pip",
            "pytest",
            "scp",
            "source",
            "ssh",
        ),
        *("sudo", "systemctl"),
    )
)
PROGRAMS = OURS.keys() | RUN | TOLD
SHELLS = frozenset({"", "sh", "bash", "shell", "console"})
# They go on until they are stopped, or talk to whoever sits there: what they are told is checked,
# and no more.
LASTING = frozenset(
    {"swarm-peer join", "swarm-peer bootstrap", "swarm serve", "swarm chat", "swarm demo"}
)
GATEWAY = "localhost:8000", "127.0.0.1:8000"
PLACEHOLDERS = {
    "MODEL": TARGET,
    "TARGET": TARGET,
    "path/or/hub-id": TARGET,
    "DRAFT": DRAFT,
    "small/model": DRAFT,
    "HOST:PORT": "peer.example.org:31330",
    "PORT": "31330",
}
_WORD = r"(?<![\w/.-]){}(?![\w/.=-])"


def is_shell(block: Block) -> bool:
    """Tell whether a block is to be typed; a synopsis with its ``[OPTIONS]`` is not."""
    first = (block.content.split() or [""])[0]
    typed = block.language in SHELLS and (first in PROGRAMS or _is_setting(first))
    return typed and "[OPTIONS]" not in block.content


def lines(block: Block) -> Iterator[str]:
    """Return the commands, each whole and without prompts."""
    command = ""
    for line in block.content.replace("\\\n", " ").splitlines():
        command = f"{command}\n{line}" if command else line.strip().removeprefix("$ ")
        if command and not command.startswith("#") and _is_complete(command):
            yield command
        if not command or _is_complete(command):
            command = ""


def _is_complete(command: str) -> bool:
    """Tell whether all quotes are closed."""
    try:
        return bool(words(command)) or command.startswith("#")
    except ValueError:
        return False


def filled(text: str, address: str, gateway: str) -> str:
    """Fill in what a reader would."""
    for name, value in {**PLACEHOLDERS, "ADDRESS": address, "/ip4/...": address}.items():
        text = re.sub(_WORD.format(re.escape(name)), value, text)
    for default in GATEWAY:
        text = text.replace(default, gateway)
    return text


def words(line: str) -> list[str]:
    """Split a command as a shell does; operators such as ``|`` are words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    return list(lexer)


def is_simple(line: str) -> bool:
    """Tell whether a line is one program and its arguments, without any work for a shell."""
    return (
        not any(set(word) <= set("|&;<>()") for word in words(line))
        and "$" not in line
        and "~" not in line
    )


def settings_and_words(line: str) -> tuple[dict[str, str], list[str]]:
    """Split ``SWARM_NETWORK=office swarm status`` into its settings and the rest."""
    rest, settings = words(line), {}
    while rest and _is_setting(rest[0]):
        name, _, settings[name] = rest.pop(0).partition("=")
    return settings, rest


def programs(line: str) -> list[list[str]]:
    """Return every program of a line and its arguments."""
    found: list[list[str]] = [[]]
    for word in settings_and_words(line)[1]:
        if set(word) <= set("|&;()"):
            found.append([])
        else:
            found[-1].append(word)
    return [each for each in found if each]


def check(argv: list[str]) -> None:
    """Parse arguments as our program does, without running it.

    Raises click.UsageError if they are invalid.
    """
    context = OURS[argv[0]].make_context(argv[0], argv[1:])
    name, command, rest = OURS[argv[0]].resolve_command(
        context, [*context._protected_args, *context.args]
    )
    assert command is not None  # else it raises
    command.make_context(name, rest, parent=context)


def name_of(argv: list[str]) -> str:
    """Return program and command, such as ``swarm generate``."""
    group, rest = OURS[argv[0]], argv[1:]
    return f"{argv[0]} {next((word for word in rest if word in group.commands), '')}"


def lasts(line: str) -> bool:
    """Tell whether a command runs until it is stopped; one that reads a pipe ends with it."""
    first = programs(line)[0]
    return first[0] in OURS and name_of(first) in LASTING and "--help" not in first


def mentioned(page: Path) -> Iterator[list[str]]:
    """Return our commands in the text of a page: the program, the command, and options."""
    for token in tokens(page):
        for child in token.children or ():
            argv = child.content.split() if child.type == "code_inline" else []
            if len(argv) > 1 and argv[0] in OURS and re.fullmatch(r"[a-z-]+", argv[1]):
                yield argv


def unknown(argv: list[str]) -> str:
    """Return the part of a mentioned command that does not exist; "" if all of it does."""
    group = OURS[argv[0]]
    if argv[1].startswith("--"):
        return "" if argv[1] in _options(group) else argv[1]
    command = group.commands.get(argv[1])
    if command is None:
        return argv[1]
    named = {word.rstrip(".,;").partition("=")[0] for word in argv[2:] if word.startswith("--")}
    return ", ".join(sorted(named - _options(command)))


def blocks_of_commands() -> Iterator[Block]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        yield from filter(is_shell, blocks(page))


def _options(command: click.Command) -> set[str]:
    return {
        "--help",
        *(opt for param in command.params for opt in (*param.opts, *param.secondary_opts)),
    }


def _is_setting(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None
