"""The ``shoal`` command: finds the subcommand, runs it, and turns errors into a line on standard error and a status.

A subcommand's module is imported when it is asked for and not before, so that each of them starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from shoal import __version__
from shoal.errors import ShoalError, nearest


class Entry(NamedTuple):
    """Where a subcommand is, and what it does in a few words."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "serve": Entry("shoal.cli.serve", "serve", "Serve the models of a model repository."),
    "explain": Entry("shoal.cli.explain", "explain", "Show how a running server batches a model's requests, and why."),
    "check": Entry("shoal.cli.check", "check", "Check a model repository without serving it."),
}
"""Every subcommand."""


class Shoal(click.Group):
    """The group of the subcommands, which it imports one by one when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The subcommands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The subcommand of this name, imported."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that the arguments name; one that is unknown is answered with the nearest."""
        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"There is no command '{args[0]}'{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the subcommands into the help, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=Shoal, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="shoal %(version)s")
def shoal() -> None:
    """Shoal, an inference server: Triton's protocols and model repositories, in pure Python."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 1 after an error, as Triton has it."""
    try:
        result = shoal.main(arguments, prog_name="shoal", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return 1
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "shoal"
        return _complain(f"{error.format_message().rstrip('.')}\nSee '{path} --help'.")
    except (click.ClickException, ShoalError) as error:
        return _complain(error.message)
    except (KeyboardInterrupt, click.Abort):
        return 130
    return result if isinstance(result, int) else 0


def _complain(text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
