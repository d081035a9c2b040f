"""Import everything that compiling a model needs; runs that compile are forked from a process that has done so."""

import mlff_exp.engines.tracing  # noqa: F401
from mlff_exp.engines.inductor import import_compiler

import_compiler()
