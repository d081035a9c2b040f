"""Run a sweep from a directory of configurations outside the package, and read its results in Python.

    python examples/custom_sweep.py
    python examples/custom_sweep.py engine=compile device=cpu

Arguments are passed on to the command.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

from mlff_exp.results import RunResult

conf = Path(__file__).resolve().parent / "conf"
directory = Path("outputs") / f"students_{datetime.now():%Y-%m-%d_%H-%M-%S}"
command = [sys.executable, "-m", "mlff_exp", "-cd", str(conf), "experiment=students", f"hydra.sweep.dir={directory}"]
finished = subprocess.run([*command, *sys.argv[1:]], check=False)

print(f"{'checkpoint':15} {'batch':>5} {'ms':>8} {'structures/s':>13}")
for path in sorted(directory.glob("*/result.json")):
    result = RunResult.load(path.parent)
    if result.failure is not None:
        print(path.parent, result.status, result.failure.message)
        continue
    checkpoint, size = result.config["model"]["checkpoint"], result.config["batch_size"]
    latency, throughput = result.metrics["latency_median_ms"], result.metrics["throughput_systems_per_s"]
    print(f"{checkpoint:15} {size:5d} {latency:8.2f} {throughput:13.0f}")
sys.exit(finished.returncode)
