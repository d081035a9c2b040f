"""Make tables and figures of finished runs, for a terminal, as HTML and as Markdown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
