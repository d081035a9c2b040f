"""The size up to which all atoms of a molecule are neighbours; nothing here imports torch."""

from __future__ import annotations

# In a molecule of up to this many atoms, all other atoms are neighbours: exact for every geometry, never rebuilt.
ALL_PAIRS_MAX_ATOMS = 64
