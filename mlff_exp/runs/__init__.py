"""Run tasks: a run in its own process, a sweep and its stages, compiling ahead, and what a launcher executes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
