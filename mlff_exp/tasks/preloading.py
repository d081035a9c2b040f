"""Import what every worker needs, which takes longer than many runs; workers are forked from a process that has it."""

from mlff_exp.common import imports_that_stay

with imports_that_stay():
    import mlff_exp.tasks.inference
    import mlff_exp.tasks.nve  # noqa: F401
