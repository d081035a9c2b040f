"""A metric by its entry point."""

from __future__ import annotations

from mlff_exp.results import Metric, RunResult


def per_atom_us(result: RunResult) -> float | None:
    """Time of a call for each atom of water."""
    if "latency_median_ms" not in result.metrics:
        return None
    return 1000 * result.metrics["latency_median_ms"] / (3 * result.config["batch_size"])


SPEC = Metric("outside_per_atom_us", "µs", "lower", "time of a call for each atom", column="per atom / µs",
              compute="outside_force_field.metric:per_atom_us")  # fmt: skip
