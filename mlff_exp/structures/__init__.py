"""Atomic structures: read them from names and files, find neighbours, pad them into batches, store labelled sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
