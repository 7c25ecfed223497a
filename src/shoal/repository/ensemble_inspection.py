"""Checks the ensembles of a repository against its other models, without loading any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from shoal.config.check_members import is_decoupled, member_problems
from shoal.config.problem import Problem
from shoal.errors import nearest
from shoal.repository.ensembles import circle_problem, load_order
from shoal.repository.model_report import ModelReport


def with_ensembles(reports: Sequence[ModelReport]) -> list[ModelReport]:
    """The same reports with what does not hold between the ensembles and the models of their steps."""
    known = {report.name: report for report in reports}
    ensembles = {
        report.name: report.config
        for report in reports
        if not report.problems and report.config is not None and report.config.HasField("ensemble_scheduling")
    }
    order, circles = load_order(ensembles)
    for name, circle in circles.items():
        source = known[name].source
        assert source is not None
        known[name] = replace(known[name], problems=(circle_problem(source, circle),))
    for name in order:
        known[name] = _with_members(known[name], known)
    return list(known.values())


def _with_members(report: ModelReport, known: dict[str, ModelReport]) -> ModelReport:
    config, source = report.config, report.source
    assert source is not None
    absent = tuple(_absent(report, known))
    if absent:
        return replace(report, problems=absent)
    members: dict[str, Any] = {step.model_name: known[step.model_name].config for step in _steps(config)}
    problems = tuple(member_problems(config, source, members))
    config.model_transaction_policy.decoupled = is_decoupled(config, members)
    return replace(report, problems=problems)


def _steps(config: Any) -> Sequence[Any]:
    steps: Sequence[Any] = config.ensemble_scheduling.step
    return steps


def _absent(report: ModelReport, known: dict[str, ModelReport]) -> Iterator[Problem]:
    """The steps whose models are not there, or would not be loaded."""
    name, source = report.name, report.source
    assert source is not None
    for index, step in enumerate(_steps(report.config)):
        path = f"ensemble_scheduling.step[{index}]"
        member = known.get(step.model_name)
        if member is None:
            text = f"ensemble {name} contains models that are not available or ambiguous: {step.model_name}"
            yield source.problem(f"{path}.model_name", text + nearest(step.model_name, known))
        elif member.problems:
            count = len(member.problems)
            text = f"ensemble '{name}' depends on '{step.model_name}' which is not valid: it has {count} problem"
            yield source.problem(f"{path}.model_name", text + "s" * (count > 1))
        elif step.model_version > 0 and step.model_version not in member.versions:
            served = ", ".join(map(str, member.versions))
            text = f"ensemble '{name}' depends on '{step.model_name}' whose required version {step.model_version} "
            yield source.problem(
                f"{path}.model_version", f"{text}is not served; those are {served}, or -1 for the latest"
            )
