"""Makes the schemas known to Hydra."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mlff_exp.common import env_resolver
from mlff_exp.config.config import KINDS, Config, Tracking
from mlff_exp.config.device import fast_engine, is_cuda, low_precision
from mlff_exp.config.engines import PrecisionConfig
from mlff_exp.config.gate import Gate


def register_schemas() -> None:
    """Make the schemas known to Hydra, which checks names and types against them while composing."""
    OmegaConf.register_new_resolver("low_precision", low_precision, replace=True)
    OmegaConf.register_new_resolver("fast_engine", fast_engine, replace=True)
    OmegaConf.register_new_resolver("is_cuda", is_cuda, replace=True)
    OmegaConf.register_new_resolver("oc.env", env_resolver, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    schemas: dict[str, dict[str, type]] = {
        **KINDS,
        "precision": {"precision": PrecisionConfig},
        "gate": {"gate": Gate},
        "tracking": {"tracking": Tracking},
    }
    for group, nodes in schemas.items():
        for name, node in nodes.items():
            store.store(group=f"schema/{group}", name=name, node=node)
