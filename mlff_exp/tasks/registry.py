"""The registry of tasks: the facts about each task that other packages need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlff_exp.common import Registry
from mlff_exp.config import Config
from mlff_exp.tasks.options import AccuracyTask, DistillTask, InferenceTask, NveTask


@dataclass(frozen=True)
class Task:
    """One kind of run.

    Attributes:
        name: the name of the task in a configuration.
        summary: one line of help.
        options: dataclass of its options; its field ``name`` has the name as default.
        run: ``package.module:function``, which takes a configuration, a directory and a function that keeps a result.
        batches: ``package.module:function``, which yields the batches that the task will evaluate, for compiling
            ahead; None if the task compiles nothing.
        shaping: keys of the task that decide what is compiled for its batches, besides system and batch size.
        shares: how many processes share the shapes of one job when they are compiled ahead.
        ignores: keys of the configuration that the task does not use, each with what to say instead.
        judged: whether a gate judges it.
        trains: whether it trains a model, with an engine of its own.
        baseline: precision of the baselines that it times; None if it times none.
        aliases: other names for the task, for which an error message suggests this one.
    """

    name: str
    summary: str
    options: type
    run: str
    batches: str | None = None
    shaping: tuple[str, ...] = ()
    shares: int = 1
    ignores: Mapping[str, str] = field(default_factory=dict)
    judged: bool = False
    trains: bool = False
    baseline: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_timed(self) -> bool:
        """Whether it measures times, which other programs on the machine would disturb."""
        return self.baseline is not None


TASKS: Registry[Task] = Registry("task", "mlff_exp.tasks")
TASKS.register(
    Task(
        "inference",
        "time an engine alternately with its baselines, and compare its numbers with eager FP64",
        InferenceTask,
        "mlff_exp.tasks.inference:run",
        "mlff_exp.tasks.inference:batches",
        shaping=("stress",),
        baseline="fp32",
        aliases=("benchmark", "speed", "timing"),
    )
)
TASKS.register(
    Task(
        "accuracy",
        "errors of an engine over a labelled set, against eager FP64 and against the labels",
        AccuracyTask,
        "mlff_exp.tasks.accuracy:run",
        "mlff_exp.tasks.accuracy:batches",
        shaping=("dataset",),
        shares=4,  # a set of molecules has about as many shapes
        ignores={"system": "what it evaluates is task.dataset"},
        aliases=("errors", "validation"),
    )
)
TASKS.register(
    Task(
        "nve",
        "molecular dynamics at constant energy from a prepared start, judged by a gate",
        NveTask,
        "mlff_exp.tasks.nve:run",
        "mlff_exp.tasks.nve:batches",
        shaping=("systems", "replicas"),
        ignores={"batch_size": "what moves side by side is task.replicas of each of task.systems"},
        judged=True,
        aliases=("md", "dynamics", "stability"),
    )
)
TASKS.register(
    Task(
        "distill",
        "sample molecules, label them with the teacher, train a student, let it explore",
        DistillTask,
        "mlff_exp.tasks.distill:run",
        ignores={
            "model": "what it trains is task.n_features and task.n_interactions",
            "system": "what it samples is task.molecules",
            "engine": "it trains by an engine of its own",
            "precision": "it trains in FP32",
            "batch_size": "what it trains on at once is task.atoms_per_step",
        },
        trains=True,
        aliases=("train", "training"),
    )
)


def precisions(config: Config) -> tuple[str, ...]:
    """Return the precisions of the engines of a run: its own, and that of the baselines of its task."""
    own, baseline = config.precision.name, TASKS[config.task.name].baseline
    return (own,) if baseline in (None, own) else (own, str(baseline))
