"""``model=so3lr``: SO3LR with the weights that its package holds."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_exp.models.spec import ModelSpec


@dataclass
class SO3LRModel:
    """SO3LR of the package ``so3krates-torch``; charge and spin are zero."""

    name: str = "so3lr"


SPEC = ModelSpec(
    "so3lr",
    SO3LRModel,
    "SO3LR with its published weights",
    "mlff_exp.models.foreign.so3lr:make",
    truth="mlff_exp.models.foreign.so3lr:truth",
    extra="so3lr",
)
