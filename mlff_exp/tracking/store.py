"""An MLflow store, and the experiment in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlff_exp.common import shell_command
from mlff_exp.config import ConfigError
from mlff_exp.tracking.limits import MAX_EXPERIMENT_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# A view of the runs in the UI, at …/#/experiments/<id>/runs?viewStateShareKey=headline.
VIEW = "headline"
VIEW_STATE = {
    "selectedColumns": [
        *(f"params.`{name}`" for name in ("engine.name", "engine.mode", "precision.name", "batch_size")),
        *(f"metrics.`{name}`" for name in ("latency_median_ms", "speedup_vs_baseline", "speedup_vs_single_eager")),
        *(f"metrics.`{name}`" for name in ("peak_memory_mib", "force_relative_rmse_vs_fp64_percent")),
        *(f"tags.`{name}`" for name in ("verdict", "timing.trust")),
    ]
}


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str


def find_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """Return the id of an experiment; make the experiment if there is none of this name.

    Raises:
        ConfigError: MLflow does not accept the name, or has deleted the experiment.
    """
    from mlflow.exceptions import MlflowException

    if not name.strip() or len(name) > MAX_EXPERIMENT_NAME:
        raise ConfigError(f"tracking.experiment={name[:40]!r} must have 1 to {MAX_EXPERIMENT_NAME} characters")
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        restore = shell_command("mlflow", "experiments", "restore", "--experiment-id", experiment.experiment_id)
        raise ConfigError(
            f"tracking.experiment={name} is deleted in this store: choose another name, or restore it with "
            f"MLFLOW_TRACKING_URI={shell_command(client.tracking_uri)} {restore}"
        )
    if experiment is not None:
        if not experiment.experiment_id:
            raise ValueError("an experiment without an id")
        return str(experiment.experiment_id)
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(VIEW_STATE),
    }
    try:
        return str(client.create_experiment(name, artifact_location=artifact_location, tags=tags))
    except MlflowException as error:
        # Another process made it at the same time.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return find_experiment(client, name, artifact_location)


def store_answers(store: Store) -> bool:
    """Return whether a store answers a simple request, so that a failure was not caused by the store."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.get_experiment(store.experiment_id)
    except MlflowException:
        return False
    return True


def running_runs(store: Store) -> list[Run]:
    """Return the runs of the experiment that are RUNNING."""
    return list(store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000))
