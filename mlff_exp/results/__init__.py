"""The result of a run: its numbers, its key and label, its verdict, its progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
