"""Register schemas and options with Hydra: those of the configuration and those of the registries."""

from __future__ import annotations

from collections.abc import Mapping

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from mlff_exp.common import env_resolver
from mlff_exp.config import (
    CRYSTALS,
    MOLECULES,
    PRECISIONS,
    TRACKING_NAMES,
    UNSEEN,
    Config,
    Crystal,
    FileSystem,
    Gate,
    MoleculeSystem,
    PrecisionConfig,
    Tracking,
    WaterBox,
    is_cuda,
    learn_aliases,
    learn_native,
    learn_words,
    low_precision,
)
from mlff_exp.engines import ENGINES, fast_engine
from mlff_exp.models import MODELS
from mlff_exp.tasks import TASKS, usual_by_system


def option_types() -> dict[str, dict[str, type]]:
    """Return the dataclasses of the options of each group, by group and name."""
    return {
        "task": {task.name: task.options for task in TASKS},
        "model": {spec.name: spec.options for spec in MODELS},
        "system": {"molecule": MoleculeSystem, "file": FileSystem, "water_box": WaterBox, "crystal": Crystal},
        "engine": {spec.name: spec.options for spec in ENGINES},
    }


def named_options() -> dict[str, dict[str, object]]:
    """Return the options that need no file in ``conf``, by group and name: each is a name with default values."""
    molecules = {name: name for name in MOLECULES} | {UNSEEN.removesuffix("_"): f"{UNSEEN}0"}
    return {
        "system": {
            **{option: MoleculeSystem(name) for option, name in molecules.items()},
            **{name: Crystal(name) for name in CRYSTALS},
        },
        "precision": {name: PrecisionConfig(name) for name in PRECISIONS},
        "tracking": {name: Tracking(name) for name in TRACKING_NAMES},
    }


_stored: dict[tuple[str, str], object] = {}


def _store(group: str, nodes: Mapping[str, object]) -> None:
    """Register nodes of a group with Hydra, but for those that are registered: each takes a millisecond."""
    store = ConfigStore.instance()
    for name, node in nodes.items():
        if _stored.get((group, name)) != node or store.get_type(f"{group}/{name}.yaml") is ObjectType.NOT_FOUND:
            store.store(group=group, name=name, node=node)
            _stored[group, name] = node


def register_schemas() -> None:
    """Register the schemas with Hydra, which checks names and types by them while it composes.

    Each entry of a registry and of `named_options` is an option of its group without a file: ``engine=<name>``. A file
    of the same group and name in Hydra's search path is taken instead.
    """
    OmegaConf.register_new_resolver("low_precision", low_precision, replace=True)
    OmegaConf.register_new_resolver("fast_engine", fast_engine, replace=True)
    OmegaConf.register_new_resolver("is_cuda", is_cuda, replace=True)
    OmegaConf.register_new_resolver("usual_by_system", usual_by_system, replace=True)
    OmegaConf.register_new_resolver("oc.env", env_resolver, replace=True)
    _store("schema", {"config": Config})
    types = option_types()
    for group in ("task", "model", "engine"):
        learn_words(types[group])
    for registry in (TASKS, MODELS, ENGINES):
        learn_aliases(registry)
    learn_native(spec.name for spec in MODELS if spec.native)
    schemas: dict[str, dict[str, type]] = {
        **types,
        "precision": {"precision": PrecisionConfig},
        "gate": {"gate": Gate},
        "tracking": {"tracking": Tracking},
    }
    for group, nodes in schemas.items():
        _store(f"schema/{group}", nodes)
    for group in ("model", "engine"):
        _store(group, types[group])
    for group, options in named_options().items():
        _store(group, options)
