"""The command `footplate`: a verb, or without one the terminal.

Each verb's module is imported when it is used, so that `--help` and `status` are quick.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from footplate_daemon.errors import DaemonUnreachable, FootplateError, to_json

if TYPE_CHECKING:
    from footplate_tui.ssh import Box

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
    "batch": "Submit thousands of requests in a file, watch them, fetch the answers.",
    "exchanges": "List the requests that passed; cancel one, ask one again.",
    "bench": "Measure variants side by side; compare, export, guard.",
    "check": "Hold the active model to targets: PASS or FAIL.",
    "gpu": "Show what each GPU does and who holds its memory.",
    "logs": "Show the log of the daemon or of an engine.",
    "config": "Check the configuration file.",
    "doctor": "Say what is installed, what is missing, and how to get it.",
    "env": "Make an environment for vLLM or transformers.",
    "keys": "Make, list and revoke keys for the API over TCP.",
    "reload": "Take up a changed configuration file.",
    "supervisorctl": "Run supervisorctl on our supervisord.",
    "completion": "Print the completion script for a shell.",
}
HIDDEN = frozenset({"where"})
"""Verbs for programs of ours."""
RUN_THERE = frozenset(
    {"up", "down", "restart", "logs", "config", "doctor", "env", "reload", "supervisorctl", "where"}
)
"""Verbs about the machine itself, its files and its processes: with `--host` they run on that machine."""
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
  footplate --host user@box                       the terminal here, the models there

\b
FOOTPLATE_HOME moves everything under one folder: configuration, models, state, sockets.
FOOTPLATE_HOST and FOOTPLATE_REMOTE stand for --host and --remote-command, FOOTPLATE_SSH for `ssh`.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 130 interrupted."""


class Verbs(click.Group):
    """The verbs, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS and cmd_name not in HIDDEN:
            return None
        if cmd_name in RUN_THERE and ctx.params.get("host"):
            from footplate_tui.cli.there import There  # noqa: PLC0415 - only with --host

            return There(cmd_name, _box(ctx.params))
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
@click.version_option(package_name="footplate", prog_name="footplate")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Open the session used last: the default.")
@click.option("--session", "session_id", metavar="ID", help="Open this session; `last` is the one used last.")
@click.option(
    "--host", envvar="FOOTPLATE_HOST", metavar="[USER@]HOST", help="Use the Footplate there, through ssh."
)
@click.option(
    "--remote-command",
    envvar="FOOTPLATE_REMOTE",
    default="footplate",
    metavar="COMMAND",
    help="What `footplate` is called there, if it is not found.",
)
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal, to select with.")
@click.option("--plain", is_flag=True, envvar="ACCESSIBLE", help="Chat line by line, for screen readers.")
@click.pass_context
def footplate(
    context: click.Context,
    session_id: str | None,
    host: str | None,
    remote_command: str,  # noqa: ARG001 - goes with the host
    *,
    goes_on: bool,
    no_mouse: bool,
    plain: bool,
) -> None:
    """The driver's place for the LLM runtimes of this machine: switch, chat, measure.

    Without a command it starts the daemon if need be and opens the terminal.
    """
    context.obj = _box(context.params) if host else None
    if context.invoked_subcommand is None:
        wanted = None if goes_on or session_id == "last" else session_id
        if plain:
            _open_plain(context, wanted)
        _open_terminal(context, wanted, mouse=not no_mouse)
    elif goes_on or session_id:
        raise click.UsageError("--session and --continue open the terminal: give no command.", context)


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


def _box(params: Mapping[str, Any]) -> Box:
    from footplate_tui.ssh import Box  # noqa: PLC0415 - only with --host

    host = str(params["host"])
    if host.startswith("-"):
        raise click.BadParameter(f"{host} is no host.", param_hint="--host")
    return Box(host, params["remote_command"], tuple(shlex.split(os.environ.get("FOOTPLATE_SSH") or "ssh")))


def _open_plain(context: click.Context, session_id: str | None) -> None:
    from footplate_tui.cli import plain, reaching  # noqa: PLC0415 - verbs are quicker without

    context.exit(plain.run(reaching.socket(start=True), reaching.host(), session_id))


def _open_terminal(context: click.Context, session_id: str | None, *, mouse: bool) -> None:
    from footplate_daemon import lifecycle  # noqa: PLC0415 - verbs that need no daemon are quicker without
    from footplate_daemon.paths import Paths  # noqa: PLC0415 - the same
    from footplate_tui.app import run as run_app  # noqa: PLC0415 - the same

    # Textual's own servers give it a browser for a terminal.
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        raise click.UsageError("This is no terminal: use a command.", context)
    paths = Paths.from_environment(os.environ)
    if context.obj:
        from footplate_tui.cli import reaching  # noqa: PLC0415 - only with --host

        tunnel = reaching.tunnel(context, context.obj, start=True)
        context.exit(run_app(paths, session_id, tunnel=tunnel, mouse=mouse))
    lifecycle.up(paths)
    context.exit(run_app(paths, session_id, mouse=mouse))


if __name__ == "__main__":
    main()
