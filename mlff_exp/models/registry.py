"""The kinds of force fields by name: one module of `mlff_exp.models.adapters` each, and those of other packages.

An installed package adds one by an entry point of the group ``mlff_exp.models`` that points at a `ModelSpec`.
Nothing in this module imports torch.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mlff_exp.common import Registry
from mlff_exp.models import adapters
from mlff_exp.models.spec import ModelSpec

MODELS: Registry[ModelSpec] = Registry("model", "mlff_exp.models")
for _module in iter_modules(adapters.__path__):
    MODELS.register(import_module(f"{adapters.__name__}.{_module.name}").SPEC)
