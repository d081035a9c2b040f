"""The only package that uses MLflow: the store, runs, progress, recovery, sweeps, verdicts, synchronisation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
