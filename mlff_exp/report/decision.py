"""The decision of a report in words: what was asked, what is safe to use, how sure that is, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mlff_exp.report.text import format_number, format_ratio
from mlff_exp.report.validity import VALID, choice, stability, systems_of, validity
from mlff_exp.results import DECIDING_PS, ENOUGH_PS, NON_CONSERVATIVE, Decision, RunResult, label, model_word

SPEEDUP = "speedup_vs_baseline"
FORCE_ERROR = "force_relative_rmse_vs_fp64_percent"
STRESS_ERROR = "stress_relative_rmse_vs_fp64_percent"
MAX_NAMED = 4  # of one kind in a sentence
DECISIONS: tuple[Decision, ...] = ("GO", "NO-GO", "UNDECIDED")  # in the order of their mention
ASKED, SAFE, SURE, HELP = "Asked", "Safe to use", "How sure", "What would make it surer"


def decide(results: Sequence[RunResult]) -> dict[str, str]:
    """Answer the four questions of a report in a sentence each; empty if no run timed an engine or was judged.

    Args:
        results: of runs that use a model.
    """
    timed = [result for result in results if SPEEDUP in result.metrics]
    moved = [result for result in results if result.verdict is not None]
    if not timed and not moved:
        return {}
    said = {ASKED: _asked(results), SAFE: _safe(timed, moved, results), SURE: _sure(timed, moved)}
    if help_ := _what_helps(timed, moved, results):
        said[HELP] = help_
    return said


def _asked(results: Sequence[RunResult]) -> str:
    models = _listed(model_word(result.config["model"]) for result in results)
    systems = _listed(str(system["name"]) for result in results for system in systems_of(result))
    engines = _listed(choice(result, "engine") for result in results)
    precisions = _listed(choice(result, "precision") for result in results)
    tasks = Counter(result.config["task"]["name"] for result in results)
    runs = ", ".join(f"{count} of {task}" for task, count in tasks.items())
    return f"{models} on {systems or 'the validation set'} with {engines} in {precisions} ({runs})"


def _safe(timed: Sequence[RunResult], moved: Sequence[RunResult], results: Sequence[RunResult]) -> str:
    """Return the fastest setting for each model and system among those whose speedup is valid."""
    if not timed:
        said = [
            f"{label(result.config)} is {decision}{f' ({NON_CONSERVATIVE})' * result.non_conservative}"
            for result, decision in sorted(_open(moved, results), key=lambda pair: DECISIONS.index(pair[1]))
        ]
        return f"{_shortened(said)}; nothing was timed"
    judged = [(validity(result, results), result) for result in timed]
    best: dict[Any, RunResult] = {}
    for said_of, result in judged:
        key = (model_word(result.config["model"]), systems_of(result)[0]["name"])
        known = best.get(key)
        if said_of == VALID and (known is None or _per_structure(result) > _per_structure(known)):
            best[key] = result
    if best:
        return _shortened([_praise(result) for result in best.values()])
    why = Counter(said_of for said_of, _ in judged if said_of)
    reasons = ", ".join(f"{count} × {reason}" for reason, count in why.items())
    return f"no optimisation is known to be safe ({reasons})" if reasons else "eager FP32: nothing else was timed"


def _open(moved: Sequence[RunResult], results: Sequence[RunResult]) -> list[tuple[RunResult, Decision]]:
    """Return runs with their verdicts, without an UNDECIDED where a run with more starts has decided."""
    found = [(result, result.verdict.decision) for result in moved if result.verdict is not None]
    return [
        (result, decision)
        for result, decision in found
        if decision != "UNDECIDED" or len(systems_of(result)) != 1 or stability(result, results) in (None, decision)
    ]


def _per_structure(result: RunResult) -> float:
    """Return the speedup per structure if it was measured, else the speedup at the same batch size."""
    return result.metrics.get("speedup_vs_single_eager", result.metrics[SPEEDUP])


def _praise(result: RunResult) -> str:
    error = f"{format_number(result.metrics[FORCE_ERROR])}%" if FORCE_ERROR in result.metrics else "not measured"
    if STRESS_ERROR in result.metrics:
        error += f", stress error {format_number(result.metrics[STRESS_ERROR])}%"
    return f"{label(result.config)}: {format_ratio(result, SPEEDUP)} as fast as eager FP32, force error {error}, stable"


def _sure(timed: Sequence[RunResult], moved: Sequence[RunResult]) -> str:
    said = []
    if timed:
        said.append(f"{sum(result.trusted for result in timed)} of {len(timed)} timings can be trusted")
    verdicts = []
    for result in moved:
        assert result.verdict is not None, "it is one of those that moved"
        starts, task = result.verdict.n_starts, result.config["task"]
        length = f" over {task['duration_ps']:g} ps" if "duration_ps" in task else ""
        engine = f"{choice(result, 'engine')} {choice(result, 'precision')}"
        verdicts.append(f"{result.verdict.decision} of {engine} by {starts} start{'s' * (starts > 1)}{length}")
    said.append(f"NVE: {_shortened(verdicts)}" if verdicts else "no NVE run says whether anything is stable")
    return "; ".join(said)


def _what_helps(timed: Sequence[RunResult], moved: Sequence[RunResult], results: Sequence[RunResult]) -> str:
    said = []
    for result, decision in _open(moved, results):
        starts = result.verdict.starts_that_decide if result.verdict is not None else None
        if decision == "UNDECIDED" and starts is not None:
            said.append(f"task.replicas={starts} for {label(result.config)}")
    if any(result.config["task"].get("duration_ps", DECIDING_PS) < ENOUGH_PS for result in moved):
        said.append(f"task.duration_ps={DECIDING_PS:g}")
    if any(result.easier_than_usual for result in moved):
        said.append("the usual task.timestep_fs and task.temperature_k")
    unknown = dict.fromkeys(
        f"{choice(result, 'engine')} {choice(result, 'precision')}"
        for result in timed
        if validity(result, results) == "stability not known"
    )
    if unknown:
        said.append(f"task=nve with {_shortened(list(unknown))}")
    if any(not result.trusted for result in timed):
        said.append("more calls for timings marked (?)")
    return "; ".join(said)


def _listed(words: Iterable[str]) -> str:
    return _shortened(list(dict.fromkeys(words)), ", ")


def _shortened(said: Sequence[str], separator: str = "; ") -> str:
    more = f"{separator}and {len(said) - MAX_NAMED} more" if len(said) > MAX_NAMED else ""
    return separator.join(said[:MAX_NAMED]) + more
