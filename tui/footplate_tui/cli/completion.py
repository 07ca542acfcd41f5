"""`footplate completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete our commands and options.

    \b
    bash:  footplate completion bash >> ~/.bashrc
    zsh:   footplate completion zsh  >> ~/.zshrc
    fish:  footplate completion fish > ~/.config/fish/completions/footplate.fish
    """  # noqa: D301 - click's sign for "do not wrap"
    kind = get_completion_class(shell)
    assert kind  # noqa: S101 - the choices are the shells that click knows
    click.echo(kind(context.find_root().command, {}, "footplate", "_FOOTPLATE_COMPLETE").source())
