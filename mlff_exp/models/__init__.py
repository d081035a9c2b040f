"""Force fields: the shipped network, the predecessor's network, and the registry of models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
