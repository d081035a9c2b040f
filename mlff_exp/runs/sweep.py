"""Run an experiment of several stages, each a product of overrides.

A stage marked ``gate`` ends the experiment if its verdict is NO-GO. A plain ``-m`` sweep is an experiment of one stage.
``sweep.resume`` continues an unfinished experiment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from mlff_exp.common import atomic_write, hydra_override, mask_secrets, shell_command
from mlff_exp.config import ConfigError
from mlff_exp.measure import LoadMonitor
from mlff_exp.report import load_targets, write_report
from mlff_exp.runs.directories import claim_directory, refuse_used_by_sweep
from mlff_exp.runs.go import gate_decision
from mlff_exp.runs.host import SweepHost
from mlff_exp.runs.outcome import EXIT_FAILED, EXIT_INCOMPLETE, Outcome, exit_code, where_to_look
from mlff_exp.runs.preparing import PreparedSweep, refuse_gates_that_cannot_run
from mlff_exp.runs.recording import Recorder
from mlff_exp.runs.resuming import N_JOBS, directory_to_resume, find_done_jobs, refuse_other_number
from mlff_exp.runs.stages import StageRunner
from mlff_exp.tasks import TASKS
from mlff_exp.tracking import SWEEP_FILE, open_store, set_run_tag, sweep_run


def run_sweep(host: SweepHost, prepared: PreparedSweep, load: LoadMonitor) -> int:
    """Run all jobs, write the report, and return the exit code of the sweep.

    Args:
        host: composes configurations and launches jobs.
        prepared: the sweep.
        load: measures the load of the machine since before the preparation.

    Raises:
        ConfigError: the directory belongs to another sweep, there is no store, or a required GO is missing.
        KeyboardInterrupt: after the command that resumes was printed.
    """
    master, jobs = prepared.master, prepared.jobs
    resume = master.sweep.resume
    if resume is None:  # refused before the store is opened, which takes seconds
        refuse_gates_that_cannot_run(jobs)
        refuse_used_by_sweep(host.directory)
    elif host.directory_is_given:
        raise ConfigError(f"sweep.resume={resume} says which directory: leave out hydra.sweep.dir")
    targets = load_targets(master.sweep.targets)
    store = open_store(master.tracking)
    if resume is not None:
        host.place(directory_to_resume(store, resume))
    directory = host.directory
    decision = gate_decision(host, prepared, store)
    if resume is not None:
        refuse_other_number(len(jobs), directory)
    done = find_done_jobs(jobs, directory, store)
    directory.mkdir(parents=True, exist_ok=True)
    if resume is None:
        claim_directory(directory)
    record = OmegaConf.create({**mask_secrets(host.settings()), N_JOBS: len(jobs)})
    atomic_write(directory / SWEEP_FILE, OmegaConf.to_yaml(record))

    timed = [job for number, job in enumerate(jobs) if number not in done and TASKS[job.config.task.name].is_timed]
    if timed and host.here:
        load.warn(timed[0].config.device)
    with sweep_run(store, master.sweep.name, directory) as sweep_id:
        stages = StageRunner(host, Recorder(directory, sweep_id, store), jobs, done, decision)
        try:
            left = stages.run(master.sweep)
        except KeyboardInterrupt:
            print(f"to go on: {_command_to_go_on(directory)}", file=sys.stderr)
            raise
        written = write_report(directory, master.sweep.name, range(len(jobs)), targets)
        if store is not None and sweep_id is not None:
            set_run_tag(store, sweep_id, "timing.trust", written.trust)
    print(f"report: {written.page}")
    for line in written.left_out:
        print(f"left out of the report: {line}", file=sys.stderr)
    print(where_to_look(master.tracking))
    if left:
        print(f"{left} runs are left; to go on: {_command_to_go_on(directory)}")
    return _code(stages.outcomes, left) or (EXIT_FAILED if written.left_out else 0)


def _code(outcomes: Sequence[tuple[Outcome, bool]], left: int) -> int:
    """The exit code of a sweep, after a line for each failure."""
    for outcome, _ in outcomes:
        if outcome.failed:
            reason = str(outcome.failure_message).partition("\n")[0]
            print(f"{outcome.status}: {outcome.label}: {outcome.failure_kind}: {reason}", file=sys.stderr)
    # Only the verdict of a gate decides on the exit code.
    code = exit_code(outcome for outcome, gate in outcomes if gate or outcome.failed)
    return code if code or not left else EXIT_INCOMPLETE


def _command_to_go_on(directory: Path) -> str:
    return shell_command(hydra_override("sweep.resume", directory))
