"""The commands: mlff-exp and those that read, upload and publish what it left."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
