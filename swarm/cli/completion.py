"""``swarm completion`` and ``swarm-peer completion``: Tab completes commands, options, models."""

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete this program's commands.

    For bash, put `eval "$(swarm completion bash)"` into ~/.bashrc; for zsh, the same with zsh into
    ~/.zshrc; for fish, run `swarm completion fish > ~/.config/fish/completions/swarm.fish`.
    """
    from click.shell_completion import get_completion_class

    program = context.find_root().command
    assert program.name is not None
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{program.name.replace('-', '_').upper()}_COMPLETE"  # that click itself reads
    script = kind(program, {}, program.name, variable)
    click.echo(script.source_template % script.source_vars())
