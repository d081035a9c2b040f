"""What makes a model fast: each engine turns a model into a function from a batch to energies and forces."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
