"""Import everything that compiling a model needs; runs that compile are forked from a process that has done so."""

from mlff_exp.common import imports_that_stay
from mlff_exp.engines.inductor import import_compiler

with imports_that_stay():
    import mlff_exp.engines.tracing  # noqa: F401

    import_compiler()
