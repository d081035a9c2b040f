"""The registry of metrics: the meaning of each number of a result, its unit, which way is better, and advice.

An installed package adds a metric by an entry point of the group ``mlff_exp.metrics``, which points at a `Metric` with
``compute``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mlff_exp.common import Registry
from mlff_exp.results.estimate import HIGH, LOW

Better = Literal["lower", "higher", "zero", ""]
ENGINE = "<engine>"  # in a name: any engine
PLANTED = 0.05  # part by which a control is slower than what it is compared with
INTERVAL = re.compile(rf"({LOW}|{HIGH})$")


@dataclass(frozen=True)
class Metric:
    """Description of one metric.

    Attributes:
        name: of the metric; it ends with the unit. ``<engine>`` in it stands for the name of any engine.
        unit: as text; "" for a pure number.
        better: "lower", "higher", "zero" for what is best near zero, or "" where neither is better.
        meaning: one line.
        task: the task that measures it, for the page of metrics; "" for a metric of another package.
        advice: what to do if a gate has a limit on it that did not hold.
        fault: one word for what a force field is that does not hold such a limit; it stands before the reason.
        column: heading in the report's table of runs; without one it has no column.
        brief: heading where a single run prints the main numbers of its trajectory; without one it is not printed.
        digits: how the column shows the number, as Python's format specification; a ratio has its interval instead.
        statistic: "mean" or "spread" for a statistic over independent starts, which a gate judges by its interval and
            not by its value; "" otherwise.
        compute: ``package.module:function``, for a metric of another package: takes a finished `RunResult` and returns
            a finite number, or None where the metric does not apply. It is called once, at the end of the run.
    """

    name: str
    unit: str
    better: Better
    meaning: str
    task: str = ""
    advice: str = ""
    fault: str = ""
    column: str = ""
    brief: str = ""
    digits: str = ".3g"
    compute: str | None = None
    statistic: Literal["", "mean", "spread"] = ""

    @property
    def is_ratio(self) -> bool:
        """Whether the metric is a ratio, which is shown with its interval."""
        return self.unit == "×"

    def names(self, name: str) -> bool:
        """Return whether a name in a result is a name of this metric."""
        before, family, after = self.name.partition(ENGINE)
        if not family:
            return name == self.name
        return re.fullmatch(rf"{re.escape(before)}\w+{re.escape(after)}", name) is not None


METRICS: Registry[Metric] = Registry("metric", "mlff_exp.metrics")


def find_metric(name: str) -> Metric | None:
    """The metric that a name in a result is of, or None if no metric is registered for it.

    Args:
        name: with what may stand behind it: ``_ci_low``, ``_ci_high``, and the part of a set or the system after a
            slash.
    """
    plain = INTERVAL.sub("", name.partition("/")[0])
    if plain in METRICS:
        return METRICS[plain]
    return next((metric for metric in METRICS if metric.names(plain)), None)


_DRIFT = (
    "If the trajectory is shorter than 10 ps: lengthen task.duration_ps. If not: repeat with precision=fp64 "
    "engine=eager. If the drift is gone, it was arithmetic: use a wider precision. If it stays, the forces are not the "
    "gradient of a smooth energy: look at the cutoff, at norms near zero and at whether the model is conservative."
)
_WALK = (
    "The energy of each start walks by itself: the forces have an error without memory from step to step, as low "
    "precision makes it. Use a wider precision, or run for a shorter time than task.duration_ps."
)
_TEMPERATURE = "Lengthen task.probe_ps and task.duration_ps. If the mean still wanders, energy is not conserved."
_FLUCTUATION = "Halve task.timestep_fs: the fluctuation must fall to a quarter. If not, the energy is not smooth."

NON_CONSERVATIVE = "non-conservative"
_NON_CONSERVATIVE = (
    "The force field is non-conservative: its forces are not minus the gradient of the energy. Either the model "
    "predicts forces of its own, or its implementation is wrong. Use one whose forces are a gradient."
)
_ENGINE_NON_CONSERVATIVE = (
    "The engine is non-conservative: its forces are not minus the gradient of its own energy. Look for a kernel that "
    "is wrong: engine=eager with the same model says whether it is the engine."
)

INFERENCE = (
    Metric("latency_median_ms", "ms", "lower",
           "median time of a call, with its interval; by device events on CUDA, by the wall clock on a CPU",
           column="latency / ms", digits=".3f"),
    Metric("latency_p95_ms", "ms", "lower", "95th percentile of the time of a call"),
    Metric("latency_mad_ms", "ms", "lower", "median absolute deviation of the time of a call from its median"),
    Metric("latency_wall_median_ms", "ms", "lower", "median of what the host waits for a call on a GPU"),
    Metric("throughput_systems_per_s", "1/s", "higher", "systems per second, of the median time of a call"),
    Metric("atoms_per_s", "1/s", "higher", "atoms per second, of the median time of a call"),
    Metric("first_call_s", "s", "lower", "time of the first call, compiling and capturing included"),
    Metric("compile_s", "s", "lower", "time of compiling and capturing alone"),
    Metric("speedup_vs_baseline", "×", "higher", "speedup over eager FP32 at the same batch size, with its interval",
           column="speedup vs eager FP32"),
    Metric("speedup_vs_fp32", "×", "higher", "speedup over the same engine in FP32, with its interval"),
    Metric("speedup_vs_<engine>", "×", "higher",
           "speedup over this engine at the same precision and batch size, where `task.baselines` names it, with its "
           "interval"),
    Metric("speedup_vs_single_eager", "×", "higher",
           "speedup per structure over eager FP32 on one structure, with its interval",
           column="per structure vs single eager"),
    Metric("speedup_vs_calculator", "×", "higher",
           "speedup per structure over the ASE calculator of the model's own package on one structure, its neighbour "
           "list included, with its interval", column="per structure vs its package's calculator"),
    Metric("break_even_calls", "", "lower",
           "number of calls after which the first call has paid; absent if it never does"),
    Metric("control_same", "×", "", "control: time of the engine over its own, with its interval"),
    Metric("control_slower", "×", "",
           f"control: time of the engine with {PLANTED:.0%} planted over its own, with its interval"),
    Metric("peak_memory_mib", "MiB", "lower", "peak memory of the engine alone on a GPU",
           column="memory / MiB", digits=".0f"),
    Metric("memory_vs_baseline", "", "lower", "peak memory over that of eager FP32"),
    Metric("graph_count", "", "lower", "graphs compiled in all"),
    Metric("graph_breaks", "", "lower", "graph breaks"),
    Metric("recompiles", "", "lower", "graphs compiled after the first call"),
    Metric("kernel_launches", "", "lower", "kernels, copies and fills of one call on a GPU"),
    Metric("energy_mae_vs_fp64_mev_per_atom", "meV/atom", "lower",
           "mean absolute error of the energy against eager FP64 of the same weights, on what was timed"),
    Metric("energy_mae_vs_fp64_percent_of_atomisation", "%", "lower",
           "the same error relative to the energy of atomisation: that of the structure less that of its atoms, each "
           "by itself, of the same model"),
    Metric("energy_relative_mae_vs_fp64_percent", "%", "lower",
           "the same error relative to the total energy, as the plan asks for it; absent where that is zero"),
    Metric("force_rmse_vs_fp64_mev_per_ang", "meV/Å", "lower",
           "root mean square error of force components against eager FP64 of the same weights, on what was timed"),
    Metric("force_worst_atom_vs_fp64_mev_per_ang", "meV/Å", "lower",
           "largest error of the force on an atom against eager FP64 of the same weights, on what was timed"),
    Metric("force_relative_rmse_vs_fp64_percent", "%", "lower",
           "the root mean square error relative to the root mean square force; absent where that is zero",
           column="force error vs FP64 / %", digits=".2g"),
    Metric("stress_rmse_vs_fp64_gpa", "GPa", "lower",
           "root mean square error of the nine components of the stress against eager FP64 of the same weights, on "
           "what was timed; absent unless every system is periodic in all three directions"),
    Metric("stress_relative_rmse_vs_fp64_percent", "%", "lower",
           "the same error relative to the root mean square of the stress; absent where that is zero",
           column="stress error vs FP64 / %", digits=".2g"),
)  # fmt: skip

LABELLED = (
    Metric("structures", "", "", "structures of the labelled set"),
    Metric("energy_mae_mev_per_atom", "meV/atom", "lower", "mean absolute error of the energy against the labels"),
    Metric("force_mae_mev_per_ang", "meV/Å", "lower", "mean absolute error of force components against the labels",
           column="force MAE vs teacher / (meV/Å)", digits=".1f"),
    Metric("force_rmse_mev_per_ang", "meV/Å", "lower",
           "root mean square error of force components against the labels"),
    Metric("force_r2", "", "higher", "R² of all force components against the labels"),
    Metric("training_structures", "", "", "structures of the last round of training"),
    Metric("training_steps", "", "", "steps of the last round of training"),
    Metric("training_s", "s", "lower", "duration of the last round of training"),
    Metric("training_loss", "eV/Å", "lower", "last mean of the loss; as a series `loss`"),
)  # fmt: skip

NVE = (
    Metric("energy_drift_mean_mev_per_atom_per_ps", "meV/atom/ps", "zero",
           "heating: mean over the starts of the fitted slope of the total energy, with its interval; with one start "
           "the interval allows for a walk of the energy",
           advice=_DRIFT, brief="heating / (meV/atom/ps)", statistic="mean"),
    Metric("energy_drift_mean_percent_of_thermal", "%", "zero",
           "the same over the run, relative to E − E_min", advice=_DRIFT, statistic="mean"),
    Metric("energy_walk_percent_of_thermal", "%", "lower",
           "walk: standard deviation over the starts of slope times duration, relative to E − E_min, with its "
           "interval; with one start it is not known",
           advice=_WALK, brief="walk / % of thermal", statistic="spread"),
    Metric("energy_drift_mev_per_atom_per_ps", "meV/atom/ps", "zero",
           "fitted slope of the total energy of the start that drifts most, with its interval", advice=_DRIFT),
    Metric("energy_drift_percent_of_thermal", "%", "zero",
           "drift of that start over the run, relative to E − E_min; absent where that is not positive", advice=_DRIFT),
    Metric("energy_drift_percent", "%", "zero",
           "last against first total energy, relative to the first, of the start where it is largest", advice=_DRIFT),
    Metric("energy_fluctuation_percent", "%", "lower",
           "standard deviation of the total energy, relative to its mean, of the start where it is largest",
           advice=_FLUCTUATION),
    Metric("energy_fluctuation_mev_per_atom", "meV/atom", "lower",
           "standard deviation of the total energy about the fitted line; root mean square over the starts",
           advice=_FLUCTUATION),
    Metric("energy_fluctuation_percent_of_thermal", "%", "lower",
           "the same relative to E − E_min; absent where that is not positive", advice=_FLUCTUATION,
           brief="fluctuation / % of thermal"),
    Metric("temperature_mean_k", "K", "", "mean temperature of the internal degrees of freedom, over all starts",
           advice=_TEMPERATURE, brief="mean / K"),
    Metric("temperature_error_k", "K", "zero",
           "mean temperature less the one that was asked for; mean over the starts, with its interval",
           advice=_TEMPERATURE, statistic="mean"),
    Metric("temperature_drift_k", "K", "zero",
           "mean temperature of the last fifth less that of the first fifth; mean over the starts, with its interval",
           advice="Energy enters or leaves: see the drift. Over a few ps it may only move between modes: lengthen "
           "task.duration_ps.", statistic="mean"),
    Metric("max_displacement_ang", "Å", "", "largest distance of an atom from its start"),
    Metric("max_bond_change_ang", "Å", "lower",
           "largest change of the length of a bond, across periodic boundaries too; absent without bonds",
           advice="A bond broke: look at the frames around it. If the teacher keeps it, the student has not seen such "
           "geometries: let task=distill explore at that temperature."),
    Metric("lindemann_ratio", "", "lower",
           "root mean square distance of the atoms from their relaxed lattice sites, over the distance of nearest "
           "neighbours; largest of all frames and starts; absent for a system that is judged by its bonds",
           advice="The crystal melts, or atoms leave their sites: look at the last frames. A liquid has no lattice: "
           "take lindemann_ratio and max_bond_change_ang out of the gate."),
    Metric("momentum_error", "", "lower", "‖Σp‖ / Σ‖p‖",
           advice="Forces do not sum to zero: the force field is not invariant under translation."),
    Metric("centre_of_mass_drift_ang", "Å", "lower",
           "largest distance of the centre of mass from its start, over the run and all starts"),
    Metric("translation_percent_of_kinetic", "%", "lower",
           "kinetic energy of the centre of mass, of all kinetic energy; mean over the run and the starts, with its "
           "interval", statistic="mean"),
    Metric("rotation_percent_of_kinetic", "%", "lower",
           "kinetic energy of the rotation of a molecule as a rigid body, of all kinetic energy; mean over the run and "
           "the starts, with its interval; 0 in a periodic system",
           advice="The forces make the molecule rotate: the force field is not invariant under rotation, or its "
           "precision is too coarse.", statistic="mean"),
    Metric("equipartition_ratio", "", "",
           "mean kinetic energy of a group over its share by equipartition, with its interval over the starts; behind "
           "a slash stands the group: `element/C`, or `stretch/XH` for all bonds of hydrogen to another element",
           statistic="mean"),
    Metric("finite_difference_error_ev_per_ang", "eV/Å", "lower",
           "largest error of forces against differences of the energy that the energy's rounding does not explain, "
           "in FP64, or in the precision of a model that runs as it is",
           advice=_NON_CONSERVATIVE, fault=NON_CONSERVATIVE),
    Metric("circulation_error", "", "lower",
           "work of the forces around a small closed loop in configuration space, |∮ F·dr| over ∮ |F·dr|, in FP64; "
           "largest of several loops",
           advice=_NON_CONSERVATIVE, fault=NON_CONSERVATIVE),
    Metric("engine_finite_difference_error_ev_per_ang", "eV/Å", "lower",
           "the same of the engine's own energies and forces, in FP64 and FP32; lower precisions are too coarse",
           advice=_ENGINE_NON_CONSERVATIVE, fault=NON_CONSERVATIVE),
    Metric("engine_circulation_error", "", "lower",
           "`circulation_error` of the engine's own forces, in FP64 and FP32; lower precisions are too coarse",
           advice=_ENGINE_NON_CONSERVATIVE, fault=NON_CONSERVATIVE),
    Metric("fluctuation_ratio_dt", "", "",
           "fluctuation at the timestep over that at half of it, in FP64; 4 for a smooth energy",
           advice="The energy is not smooth on the scale of a step: look for kinks and jumps, first at the cutoff."),
    Metric("time_reversal_error_ang", "Å", "lower",
           "largest distance from the start after 200 steps forth and back, in FP64",
           advice="The forces depend on more than the positions: noise, a stale neighbour list, or state in the "
           "model."),
    Metric("engine_energy_drift_mev_per_atom_per_ps", "meV/atom/ps", "zero",
           "fitted slope of the total energy that the engine itself gave, with its interval"),
    Metric("engine_energy_fluctuation_mev_per_atom", "meV/atom", "lower",
           "fluctuation of the total energy that the engine itself gave"),
    Metric("teacher_energy_drift_mev_per_atom_per_ps", "meV/atom/ps", "zero",
           "trend of V_teacher + K of the start that drifts most, with its interval"),
    Metric("teacher_energy_drift_mean_mev_per_atom_per_ps", "meV/atom/ps", "zero",
           "mean over the starts of that trend, with its interval",
           advice="The student takes the atoms to where it no longer resembles its teacher: let task=distill explore "
           "at that temperature.", statistic="mean"),
    Metric("steps_per_s", "1/s", "higher", "steps per second of each trajectory, recording included",
           brief="steps/s"),
    Metric("ns_per_day", "ns/day", "higher", "simulated time per day of each trajectory, recording included"),
)  # fmt: skip

# Points along a run, by name; no metric, because a series has no one value.
SERIES = {
    "loss": "mean loss of training, eV/Å",
    "total_energy_ev": "total energy of the first replica",
    "engine_total_energy_ev": "the same with the potential energy that the engine itself gave",
    "temperature_k": "temperature of the first replica",
    "displacement_ang": "largest distance of an atom of the first replica from its start",
}

for _metric in (*INFERENCE, *LABELLED, *NVE):
    METRICS.register(_metric)
