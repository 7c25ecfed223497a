"""Writes ensembles whose models stand behind each other."""

from __future__ import annotations

CONFIG = """
platform: "ensemble"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
{more}
ensemble_scheduling {{ {steps} }}
"""
STEP = """
step {{ model_name: "{model}" model_version: -1
        input_map {{ key: "IN" value: "{read}" }} output_map {{ key: "OUT" value: "{written}" }} }}
"""


def write_line(repository, name, *models, max_batch_size=8, more=""):
    """An ensemble of models behind each other."""
    tensors = ["IN", *(f"between{place}" for place in range(1, len(models))), "OUT"]
    steps = "".join(
        STEP.format(model=model, read=tensors[place], written=tensors[place + 1]) for place, model in enumerate(models)
    )
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(
        CONFIG.format(max_batch_size=max_batch_size, steps=steps, more=more)
    )
