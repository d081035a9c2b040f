"""Shapes of the fused engine that tests look at: one of each kind."""

from __future__ import annotations

import dataclasses

from mlff_exp.engines.fused.shapes import MoleculeShape, StagedShape

SPLIT = StagedShape(slots=16, molecules=1, columns=16, warps=4, split=True, pair_columns=8, pair_warps=8, early=True)
JOINED = dataclasses.replace(SPLIT, pair_columns=16, pair_warps=4)
WIDE = dataclasses.replace(JOINED, split=False)
SHARED = StagedShape(
    slots=16, molecules=4, columns=16, warps=4, split=False, pair_columns=32, pair_warps=1, early=False
)
MOLECULES = MoleculeShape(warps=8, registers=255)
