"""Distillation: sample structures of molecules, label them by the teacher, train a student, explore with it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
