"""The click command that has every server option as a flag."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from shoal.options.declare import Option, OptionError
from shoal.options.kinds import BOOLEAN, FALSE_WORDS, TRUE_WORDS
from shoal.options.read import CONFIG_VARIABLE, read_options, unknown_option
from shoal.options.server import BY_NAME, OPTIONS

CONFIG = "config"


class ServerCommand(click.Command):
    """A click command whose function gets the server's options as its parameter ``options``.

    ::

        @click.command(cls=ServerCommand)
        def serve(options: ServerOptions) -> None: ...
    """

    def __init__(self, name: str | None, callback: Callable[..., Any] | None = None, **attrs: Any) -> None:
        own = list(attrs.pop("params", None) or [])
        self._has_arguments = any(isinstance(parameter, click.Argument) for parameter in own)
        super().__init__(
            name, callback=callback, params=[*own, *map(_click_option, OPTIONS), _config_option()], **attrs
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the flags apart, then read the options from all their sources.

        Raises:
            OptionError: an option is unknown or its value is wrong.
        """
        try:
            rest = super().parse_args(ctx, complete_booleans(args, self._has_arguments))
        except click.NoSuchOption as error:
            raise OptionError(unknown_option(error.option_name)) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        flags = {option.name: ctx.params.pop(option.field) for option in OPTIONS}
        config = ctx.params.pop(CONFIG)
        if not ctx.resilient_parsing:
            ctx.params["options"] = read_options(flags, os.environ, config)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help, by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        by_field = {option.field: option for option in OPTIONS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                option = by_field.get(parameter.name or "")
                groups.setdefault(option.group if option else "Options", []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def complete_booleans(args: list[str], has_arguments: bool) -> list[str]:
    """The arguments with a value for every boolean flag that has none: ``--access-log`` becomes ``--access-log=true``.

    Args:
        args: the command line.
        has_arguments: whether the command takes arguments besides flags: one may then stand behind a boolean flag.
    """
    completed: list[str] = []
    position = 0
    while position < len(args):
        argument = args[position]
        option = BY_NAME.get(argument[2:]) if argument.startswith("--") else None
        if argument == "--":
            return completed + args[position:]
        if option is None:
            taken = 1
        elif option.kind is BOOLEAN and not _is_boolean_value(args[position + 1 : position + 2], has_arguments):
            argument, taken = f"{argument}=true", 1
        else:
            taken = 2
        completed += [argument, *args[position + 1 : position + taken]]
        position += taken
    return completed


def _is_boolean_value(following: list[str], has_arguments: bool) -> bool:
    if not following or following[0].startswith("-"):
        return False
    return not has_arguments or following[0].lower() in (*TRUE_WORDS, *FALSE_WORDS)


def _click_option(option: Option) -> click.Option:
    default = f"  [default: {option.default_text}]" if option.default_text else ""
    names = [f"--{option.name}", *(f"--{alias}" for alias in option.aliases)]
    metavar = f"[{option.kind.metavar}]" if option.kind is BOOLEAN else option.kind.metavar
    return click.Option([*names, option.field], multiple=True, type=str, metavar=metavar, help=option.help + default)


def _config_option() -> click.Option:
    return click.Option(
        [f"--{CONFIG}"],
        metavar="FILE",
        help=f"A TOML file with options, their names as keys; also from {CONFIG_VARIABLE}. Flags and variables win.",
    )
