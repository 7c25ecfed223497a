"""``shoal check``: every problem of every model in a repository, without starting anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from shoal.config.problem import Problem
from shoal.execution.gpus import count_gpus
from shoal.repository.inspection import inspect_repositories
from shoal.repository.model_report import ModelReport

_COLUMNS = ("Model", "Backend", "Versions", "Max batch", "Instances")


def check_repository(paths: Sequence[Path]) -> list[Problem]:
    """Every problem of every model in these repositories.

    Raises:
        NotFoundError: a repository does not exist.
        InvalidArgumentError: a repository is not a folder, or cannot be read.
    """
    return [problem for report in inspect_repositories(paths, count_gpus()) for problem in report.problems]


@click.command("check")
@click.argument("repositories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPOSITORY...")
def check(repositories: tuple[Path, ...]) -> None:
    """Find everything that is wrong with the models in one or more model REPOSITORIES.

    No model is started. The exit status is 0 when all models are fine, and 1 otherwise.
    """
    reports = inspect_repositories(repositories, count_gpus())
    if _is_terminal():
        _print_rich(reports)
    else:
        _print_plain(reports)
    if any(report.problems for report in reports):
        click.get_current_context().exit(1)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _row(report: ModelReport) -> tuple[str, ...]:
    instances = [f"{group.count} x {_kind(group)}" for group in report.config.instance_group]
    versions = ", ".join(map(str, report.versions))
    backend = report.config.backend or report.config.platform
    return (report.name, backend, versions, str(report.config.max_batch_size), ", ".join(instances))


def _kind(group: object) -> str:
    return group.Kind.Name(group.kind).removeprefix("KIND_")  # type: ignore[attr-defined,no-any-return]


def _summary(reports: Sequence[ModelReport]) -> str:
    wrong = [report for report in reports if report.problems]
    count = sum(len(report.problems) for report in wrong)
    if not reports:
        return "no models"
    if not wrong:
        return f"{_counted(len(reports), 'model')}, no problems"
    return f"{_counted(len(reports), 'model')}, {_counted(count, 'problem')} in {len(wrong)} of them"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _print_plain(reports: Sequence[ModelReport]) -> None:
    """One line per problem, ``FILE:LINE: field: message``, then one line per model that is fine."""
    for report in reports:
        for problem in report.problems:
            click.echo(str(problem))
        for warning in report.warnings:
            click.echo(f"warning: {warning}")
    rows = [_COLUMNS] + [_row(report) for report in reports if not report.problems]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows if len(rows) > 1 else []:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(_summary(reports))


def _print_rich(reports: Sequence[ModelReport]) -> None:
    """Problems grouped by model, then a table of the models that are fine."""
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    for report in reports:
        if report.problems or report.warnings:
            console.print(f"[bold]{escape(report.name)}[/bold]")
        for problem in report.problems:
            place = f"{problem.file}:{problem.line}" if problem.line else problem.file
            field = f" [cyan]{escape(problem.field)}[/cyan]:" if problem.field else ""
            console.print(f"  [red]✗[/red] [dim]{escape(place)}[/dim]:{field} {escape(problem.message)}")
        for warning in report.warnings:
            console.print(f"  [yellow]![/yellow] {escape(warning)}")
    table = Table(*_COLUMNS)
    for report in reports:
        if not report.problems:
            table.add_row(*map(escape, _row(report)))
    if table.row_count:
        console.print(table)
    console.print(_summary(reports))
