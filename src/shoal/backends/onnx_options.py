"""A model's settings for ONNX Runtime: what the configuration says, and what Shoal chooses where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor
from typing import Any

from shoal.config.spec import ModelSpec
from shoal.errors import ConfigError, nearest

_GRAPH_LEVELS = {
    -1: "ORT_ENABLE_BASIC",
    0: "ORT_ENABLE_ALL",
    1: "ORT_ENABLE_EXTENDED",
    2: "ORT_DISABLE_ALL",
}
"""``optimization.graph.level`` to ONNX Runtime's levels, as Triton's backend maps them; unset is 0."""

SPINNING = "session.intra_op.allow_spinning"
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_INTRA, _INTER, _MODE = "intra_op_thread_count", "inter_op_thread_count", "execution_mode"
_ARENA, _PATTERN = "enable_mem_arena", "enable_mem_pattern"

CUDA_PARAMETERS = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "gpu_mem_limit": (),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "do_copy_in_default_stream": (),
    "use_ep_level_unified_stream": (),
}
"""Model parameters that go to the CUDA provider, and the names behind Triton's numbers for them."""

_KNOWN = (_INTRA, _INTER, _MODE, _ARENA, _PATTERN, SHRINKAGE, *CUDA_PARAMETERS)


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What a session is made with.

    Attributes:
        intra_op_threads: threads that share the work of one operator.
        inter_op_threads: threads that run operators side by side, when ``parallel``.
        parallel: run independent operators at the same time.
        graph_level: the name of a ``GraphOptimizationLevel``.
        memory_arena: whether the CPU arena is used; None for the library's default.
        memory_pattern: whether memory is planned ahead; None for the library's default.
        arena_shrinkage: the arenas to shrink after every run, such as ``cpu:0``; empty for none.
        entries: session configuration entries, passed on as they are.
        cuda: the model's parameters for the CUDA provider.
        warnings: one line for each parameter that is not known.
    """

    intra_op_threads: int
    inter_op_threads: int = 0
    parallel: bool = False
    graph_level: str = "ORT_ENABLE_ALL"
    memory_arena: bool | None = None
    memory_pattern: bool | None = None
    arena_shrinkage: str = ""
    entries: Mapping[str, str] = field(default_factory=dict)
    cuda: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def default_threads(cores: float, instances: int) -> int:
    """Threads per operator: the instances share the cores that there are, and each gets at least one."""
    return max(1, floor(cores / max(1, instances)))


def read_options(spec: ModelSpec, optimization: Mapping[str, Any], cores: float) -> OnnxOptions:
    """The options of a model.

    Args:
        spec: the model's spec.
        optimization: the configuration's ``optimization`` as JSON.
        cores: the cores that the worker may use.

    Raises:
        ConfigError: a parameter has a value that it cannot have; one line for each.
    """
    reader = _Reader(spec)
    entries = {key: value for key, value in spec.parameters.items() if key.startswith("session.")}
    # Threads that wait by spinning take the cores from the server that prepares the next batch: on a machine whose
    # cores are all in use, a batch then takes twice as long and three times the processor time.
    entries.setdefault(SPINNING, "0")
    options = OnnxOptions(
        intra_op_threads=reader.number(_INTRA) or default_threads(cores, len(spec.instances)),
        inter_op_threads=reader.number(_INTER) or 0,
        parallel=reader.number(_MODE, most=1) == 1,
        graph_level=reader.level(optimization),
        memory_arena=reader.flag(_ARENA),
        memory_pattern=reader.flag(_PATTERN),
        arena_shrinkage=spec.parameters.get(SHRINKAGE, ""),
        entries=entries,
        cuda={key: reader.cuda(key, names) for key, names in CUDA_PARAMETERS.items() if key in spec.parameters},
        warnings=tuple(_unknown(spec)),
    )
    if reader.problems:
        raise ConfigError(reader.problems)
    return options


def _unknown(spec: ModelSpec) -> list[str]:
    return [
        f"model '{spec.name}': parameter '{key}' is not known to the onnxruntime backend and has no effect"
        f"{nearest(key, _KNOWN)}"
        for key in spec.parameters
        if key not in _KNOWN and not key.startswith("session.")
    ]


class _Reader:
    """Reads parameters and collects what is wrong with them."""

    def __init__(self, spec: ModelSpec) -> None:
        self.problems: list[str] = []
        self._spec = spec

    def number(self, key: str, most: int | None = None) -> int | None:
        text = self._spec.parameters.get(key)
        if text is None:
            return None
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0 or (most is not None and value > most):
            wanted = "a number of 0 or more" if most is None else " or ".join(str(n) for n in range(most + 1))
            self.problems.append(f"model '{self._spec.name}': parameter '{key}' must be {wanted}, not '{text}'")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.number(key, most=1)
        return None if value is None else value == 1

    def cuda(self, key: str, names: tuple[str, ...]) -> str:
        if not names:
            return self._spec.parameters[key]
        number = self.number(key, most=len(names) - 1)
        return names[number] if number is not None and 0 <= number < len(names) else ""

    def level(self, optimization: Mapping[str, Any]) -> str:
        level = int(optimization.get("graph", {}).get("level", 0))
        if level not in _GRAPH_LEVELS:
            self.problems.append(
                f"model '{self._spec.name}': optimization.graph.level must be one of {list(_GRAPH_LEVELS)}, not {level}"
            )
        return _GRAPH_LEVELS.get(level, "")


def session_options(options: OnnxOptions) -> Any:
    """ONNX Runtime's ``SessionOptions`` for these options."""
    import onnxruntime  # noqa: PLC0415 - heavy: only workers that run ONNX models import it

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.intra_op_threads
    session.inter_op_num_threads = options.inter_op_threads
    session.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, options.graph_level)
    if options.parallel:
        session.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    if options.memory_arena is not None:
        session.enable_cpu_mem_arena = options.memory_arena
    if options.memory_pattern is not None:
        session.enable_mem_pattern = options.memory_pattern
    for key, value in options.entries.items():
        session.add_session_config_entry(key, value)
    return session


def run_options(options: OnnxOptions) -> Any:
    """ONNX Runtime's ``RunOptions`` for these options, None when none are needed."""
    if not options.arena_shrinkage:
        return None
    import onnxruntime  # noqa: PLC0415 - heavy: only workers that run ONNX models import it

    run = onnxruntime.RunOptions()
    run.add_run_config_entry(SHRINKAGE, options.arena_shrinkage)
    return run
