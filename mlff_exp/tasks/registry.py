"""The tasks by name, and what the rest of the project has to know about each."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_exp.common import Registry


@dataclass(frozen=True)
class Task:
    """One kind of run.

    Attributes:
        name: the word for it in a configuration.
        summary: one line of help.
        run: ``package.module:function``, which takes a configuration, a directory and what keeps a result.
        batches: ``package.module:function``, which gives the batches that the task will evaluate, for compiling ahead;
            None if the task compiles nothing.
        shaping: keys of the task that decide the shapes of its batches, besides system and batch size.
        shares: how many processes share the shapes of one job when they are compiled ahead.
    """

    name: str
    summary: str
    run: str
    batches: str | None = None
    shaping: tuple[str, ...] = ()
    shares: int = 1


TASKS: Registry[Task] = Registry("task", "mlff_exp.tasks")
TASKS.register(
    Task(
        "inference",
        "time an engine alternately with its baselines, and compare its numbers with eager FP64",
        "mlff_exp.tasks.inference:run",
        "mlff_exp.tasks.inference:batches",
    )
)
TASKS.register(
    Task(
        "accuracy",
        "errors of an engine over a labelled set, against eager FP64 and against the labels",
        "mlff_exp.tasks.accuracy:run",
        "mlff_exp.tasks.accuracy:batches",
        shaping=("dataset",),
        shares=4,  # a set of molecules has about as many shapes
    )
)
TASKS.register(
    Task(
        "nve",
        "molecular dynamics at constant energy from a prepared start, judged by a gate",
        "mlff_exp.tasks.nve:run",
        "mlff_exp.tasks.nve:batches",
        shaping=("systems", "replicas"),
    )
)
TASKS.register(
    Task(
        "distill",
        "sample molecules, label them with the teacher, train a student, let it explore",
        "mlff_exp.tasks.distill:run",
    )
)
