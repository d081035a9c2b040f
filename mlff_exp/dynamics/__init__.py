"""Molecular dynamics: state, velocity Verlet, recording, the prepared start, bonds, integrator checks, restart."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
