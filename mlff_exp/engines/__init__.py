"""Engines: each turns a model into a function from a batch to energies and forces, executed in one particular way."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
