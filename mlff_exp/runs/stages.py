"""Run the jobs of a sweep, stage after stage; a gate with NO-GO ends the sweep."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mlff_exp.common import hydra_override, progress_bar
from mlff_exp.config import Sweep
from mlff_exp.results import label
from mlff_exp.runs.ahead import fill_cache
from mlff_exp.runs.host import SweepHost
from mlff_exp.runs.launching import launch
from mlff_exp.runs.outcome import Outcome
from mlff_exp.runs.preparing import Job
from mlff_exp.runs.recording import Recorder


@dataclass
class StageRunner:
    """The jobs of a sweep while they run.

    Attributes:
        host: launches jobs.
        recorder: records those that leave no result.
        jobs: all of them.
        done: numbers of those that an earlier attempt has done.
        gate_decision: what is known of the weights.
        outcomes: so far, in the order of the jobs, each with whether it is a gate.
    """

    host: SweepHost
    recorder: Recorder
    jobs: Sequence[Job]
    done: Collection[int]
    gate_decision: str
    outcomes: list[tuple[Outcome, bool]] = field(default_factory=list)

    def run(self, settings: Sweep) -> int:
        """Run the unfinished jobs and return how many were left."""
        started, budget_s = time.monotonic(), settings.budget_s
        if settings.compile_ahead and self.host.here:
            self._compile_ahead(budget_s)
        with progress_bar(total=len(self.jobs), desc="runs", unit="run") as bar:
            index = 0
            while index < len(self.jobs):
                end = self._end_of_launch(index)
                runs = index not in self.done and self.jobs[index].unavailable is None
                if runs and budget_s is not None and time.monotonic() - started > budget_s:
                    return len(self.jobs) - index
                if runs:
                    bar.set_postfix_str(label(self.jobs[index].resolved))
                self._finish(index, end)
                bar.update(end - index)
                index = end
                if index < len(self.jobs) and self.jobs[index].stage == self.jobs[index - 1].stage:
                    continue
                decisions = {outcome.decision for outcome, gate in self.outcomes if gate}
                stop = next((decision for decision in ("NO-GO", "UNDECIDED") if decision in decisions), None)
                if stop is not None:
                    print(f"{stop}: the stages after the gate are not run")
                    return 0
                if None in decisions:
                    print("no verdict: the stages after the gate are not run")
                    return len(self.jobs) - index
                if decisions == {"GO"}:
                    self.gate_decision = "GO"
        return 0

    def _compile_ahead(self, budget_s: float | None) -> None:
        to_do = {n: job for n, job in enumerate(self.jobs) if n not in self.done and job.unavailable is None}
        fill_cache({f"run {n}, {' '.join(job.overrides)}": job.config for n, job in to_do.items()}, budget_s)

    def _end_of_launch(self, index: int) -> int:
        """Return the number after the last job that is launched with this one.

        Jobs on this machine are launched one at a time, so that progress is shown; a cluster gets a complete stage.
        """
        end = index + 1
        first = self.jobs[index]
        if self.host.here or index in self.done or first.unavailable is not None:
            return end
        while end < len(self.jobs) and end not in self.done and self.jobs[end].stage == first.stage:
            end += 1
        return end

    def _finish(self, index: int, end: int) -> None:
        """Add the outcomes of the jobs from ``index`` to ``end``; jobs that are neither done nor skipped run now."""
        first = self.jobs[index]
        if index in self.done:
            self.outcomes.append((self.recorder.recorded(index), first.gate))
            return
        if first.unavailable is not None:
            self.outcomes.append((self.recorder.skipped(first, index), False))
            return
        sweep_id = self.recorder.sweep_id
        where = hydra_override("hydra.sweep.dir", self.recorder.directory)
        own = [f"sweep.id={sweep_id or 'null'}", f"sweep.gate_decision={self.gate_decision}", where]
        self.host.allow_sweep_words(sweep_id, self.gate_decision, where)
        launched = [[*job.overrides, *own, job.varied] for job in self.jobs[index:end]]
        for number, returned in enumerate(launch(self.host.launcher, launched, index), index):
            job = self.jobs[number]
            outcome = self.recorder.failed(job, number, returned) if isinstance(returned, Exception) else returned
            self.outcomes.append((outcome, job.gate))
