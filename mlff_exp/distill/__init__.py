"""From molecules to a student: sampling, labelling by the teacher, training, exploration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
