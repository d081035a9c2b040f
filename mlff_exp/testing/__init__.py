"""Property tests that anyone can run on a force field of their own: `check`, and pytest classes of the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
