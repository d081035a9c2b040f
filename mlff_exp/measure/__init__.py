"""Measurement: timing of alternating calls, statistics, machine, profiler, correctness, physics of a trajectory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
