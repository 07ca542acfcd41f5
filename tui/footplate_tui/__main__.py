"""The command `footplate`: a verb, or without one the terminal.

Each verb's module is imported when it is used, so that `--help` and `status` are quick.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence

import click

from footplate_daemon import __version__
from footplate_daemon.errors import DaemonUnreachable, FootplateError, to_json

VERBS = {
    "up": "Start the daemon under supervisord.",
    "down": "Stop everything: engines, daemon, supervisord.",
    "restart": "Restart the daemon; loaded engines stay.",
    "status": "Say what runs and what is active.",
    "models": "List the models and on which runtimes they run.",
    "ask": "Ask the active model, answer on stdout.",
    "sessions": "List, search, export and change the chats of the history.",
    "switch": "Make another model or runtime the active one.",
    "stop": "Unload an engine.",
    "plan": "Say what a switch would do.",
    "explain": "Say what would be started for a model.",
    "switches": "List the last switches.",
    "exchanges": "List the requests that passed; cancel one, ask one again.",
    "logs": "Show the log of the daemon or of an engine.",
    "config": "Check the configuration file.",
    "doctor": "Say what is installed, what is missing, and how to get it.",
    "env": "Make an environment for vLLM or transformers.",
    "keys": "Make, list and revoke keys for the API over TCP.",
    "reload": "Take up a changed configuration file.",
    "supervisorctl": "Run supervisorctl on our supervisord.",
    "completion": "Print the completion script for a shell.",
}
EXIT_FAILED = 1
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130

EXAMPLES = """\b
Examples:
  footplate                                       open the terminal
  footplate ask "How do I switch runtime?"        answer on stdout
  git diff | footplate ask "Review this"          with text from a pipe
  footplate status --json | jq .active            for programs
  footplate logs -f                               follow the daemon's log

\b
FOOTPLATE_HOME moves everything under one folder: configuration, models, state, sockets.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 130 interrupted."""


class Verbs(click.Group):
    """The verbs, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"footplate_tui.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="footplate")
@click.pass_context
def footplate(context: click.Context) -> None:
    """The driver's place for the LLM runtimes of this machine: switch, chat, measure.

    Without a command it starts the daemon if need be and opens the terminal.
    """
    if context.invoked_subcommand is None:
        _open_terminal(context)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; here every error becomes text."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run one command line; give the exit code."""
    try:
        result = footplate.main(words, prog_name="footplate", standalone_mode=False)
        sys.stdout.flush()
    except FootplateError as error:
        show_error(error, as_json="--json" in words)
        return EXIT_UNREACHABLE if isinstance(error, DaemonUnreachable) else EXIT_FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at the end, which would fail again, loudly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def show_error(error: FootplateError, *, as_json: bool) -> None:
    """Write an error: its sentence and what to do next; as JSON, the shape of the API, on stdout."""
    if as_json:
        click.echo(json.dumps(to_json(error)))
        return
    click.echo(f"{click.style('error:', fg='red')} {error.message}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)


def _open_terminal(context: click.Context) -> None:
    from footplate_daemon import lifecycle  # noqa: PLC0415 - verbs that need no daemon are quicker without
    from footplate_daemon.settings import Paths  # noqa: PLC0415 - the same
    from footplate_tui.app import run as run_app  # noqa: PLC0415 - the same

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("This is no terminal: use a command.", context)
    paths = Paths.from_environment(os.environ)
    lifecycle.up(paths)
    context.exit(run_app(paths))


if __name__ == "__main__":
    main()
