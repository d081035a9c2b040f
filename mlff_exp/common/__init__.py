"""Helpers that know nothing of force fields: atomic files, secrets, signals, progress, printed commands, registries."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
