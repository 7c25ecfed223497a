"""Reads, completes and checks a model's configuration as far as the files go, with every problem in one list."""

from __future__ import annotations

from pathlib import Path

from shoal.config.check import check_config
from shoal.config.complete import complete_config
from shoal.config.problem import independent
from shoal.config.read import Document, read_config


def prepare_config(model_dir: Path, gpu_count: int) -> Document:
    """The completed configuration of a model, with what could not be read and what does not hold.

    Args:
        model_dir: the model's folder.
        gpu_count: GPUs of this machine.
    """
    document = read_config(model_dir)
    complete_config(document.config, model_dir, gpu_count)
    found = check_config(document.config, document.source, model_dir, gpu_count)
    problems = (*document.problems, *independent(found, document.problems))
    return Document(document.config, document.source, problems)
