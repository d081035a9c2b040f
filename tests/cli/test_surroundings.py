"""Effects of shells, notebooks, containers, pipes and disks on a command."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch
from ase.build import molecule
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tqdm import tqdm

from mlff_exp.cli.app import main
from mlff_exp.cli.boundary import command_boundary
from mlff_exp.cli.surroundings import CHANGING, settle_surroundings
from mlff_exp.common.progress import progress_bar
from mlff_exp.common.shell import hydra_override
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.prediction import EngineError
from mlff_exp.measure import machine_load
from mlff_exp.measure.machine_load import LoadMonitor, other_gpu_processes
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate

ROOT = Path(__file__).resolve().parent.parent.parent


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that begins like one of our commands."""
    code = f"from mlff_exp.cli.boundary import command_boundary as boundary\nwith boundary('mlff-exp'):\n    {code}"
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, encoding="utf-8"
    )


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of this process stays the same."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend"])
def test_figures_need_no_backend(tmp_path: Path, backend: str) -> None:
    finished = python(
        "import sys; from mlff_exp.report import subplots; figure, axes = subplots(figsize=(1, 1)); "
        f"axes.plot([1, 2]); figure.savefig({str(tmp_path / 'figure.png')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules",
        MPLBACKEND=backend,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_a_style_of_ones_own_does_not_break_figures(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 20\n")
    finished = python("import matplotlib; print(matplotlib.rcParams['text.usetex'])", MATPLOTLIBRC=str(tmp_path))
    assert (finished.returncode, finished.stdout) == (0, "False\n")


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize(("value", "told"), [("1", True), ("0", False), ("", False)])
def test_what_would_change_a_run_is_taken_away_and_told_of(name: str, value: str, *, told: bool) -> None:
    os.environ[name] = value
    assert any(line.startswith(f"{name} is not passed on") for line in settle_surroundings()) == told
    assert name not in os.environ


def test_an_engine_that_compiled_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, random_model: PaiNN) -> None:
    """As torch.compile does where TORCHDYNAMO_DISABLE=1."""
    monkeypatch.setattr(torch, "compile", lambda module, **keywords: module)
    engine = CompiledEngine(random_model, "fp64", torch.device("cpu"), "max-autotune")
    with pytest.raises(EngineError, match="compiled nothing: are TORCHDYNAMO_DISABLE"):
        engine(collate([molecule("H2O")], engine.cutoff))


def test_warnings_of_other_packages_are_no_errors() -> None:
    finished = python("import warnings; warnings.warn('old', DeprecationWarning); print(1)", PYTHONWARNINGS="error")
    assert (finished.returncode, finished.stdout) == (0, "1\n"), finished.stderr
    ignored = python("import warnings; warnings.warn('old'); print(1)", PYTHONWARNINGS="ignore")
    assert (ignored.stdout, ignored.stderr) == ("1\n", "")


def test_a_long_temporary_directory_has_no_room_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    finished = python(
        "import multiprocessing as m, tempfile, time; p = m.get_context('forkserver').Process(target=time.time); "
        "p.start(); p.join(); print(p.exitcode, tempfile.gettempdir())",
        TMPDIR=str(long),
    )
    assert finished.stdout == f"0 {long}\n", finished.stderr


def test_no_temporary_directory_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(SystemExit, match="2"), command_boundary("mlff-exp"):
        pass
    assert capsys.readouterr().err == (
        "mlff-exp: no temporary files can be written: set TMPDIR to a directory where they can\n"
    )


def test_a_current_directory_that_was_deleted_is_a_line(tmp_path: Path) -> None:
    code = "from mlff_exp.__main__ import main; main()"
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -c "$1"'
    command = ["bash", "-c", script, sys.executable, code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 2
    assert finished.stderr == "mlff-exp: the current directory was deleted: change to one that exists\n"


def test_a_current_directory_that_hydra_takes_for_a_reference_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a${b}").mkdir()
    monkeypatch.chdir(tmp_path / "a${b}")
    monkeypatch.setattr(sys, "argv", ["mlff-exp"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"mlff-exp: {tmp_path}/a${{b}}: Hydra takes the ${{" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["it's", "a$$b", "a${b}", r"a\${b}", 'a"b', "a b,c=d", "back\\", r"\'"])
def test_any_name_of_a_directory_reaches_hydra(text: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([hydra_override("key", text)])
    assert OmegaConf.create({"key": parsed.value()}).key == text


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG])
def test_a_place_that_cannot_be_used_is_a_line(capsys: pytest.CaptureFixture[str], number: int) -> None:
    with pytest.raises(SystemExit, match="2"), command_boundary("mlff-exp"):
        raise OSError(number, os.strerror(number), "/srv/outputs")
    assert capsys.readouterr().err == f"mlff-exp: {os.strerror(number)}: /srv/outputs\n"


def test_a_name_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mlff-exp", "system.path=\udcff.xyz"])
    with pytest.raises(SystemExit, match="2"), command_boundary("mlff-exp"):
        pass
    assert "the argument 'system.path=\\xff.xyz' is not UTF-8" in capsys.readouterr().err


def test_who_has_no_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers; torch's compiler asks for it."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    settle_surroundings()
    assert os.environ["USER"] == "uid12345678"


def test_letters_that_a_terminal_lacks_are_replaced() -> None:
    finished = python(
        r"print('1.0\xd7 \xc5 \xb7'); import sys; print('\xd7', file=sys.stderr)",
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert (finished.returncode, finished.stdout) == (0, "1.0? ? ?\n"), finished.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_pipe_that_nobody_reads_changes_no_exit_code(code: int) -> None:
    script = "import sys\nfrom mlff_exp.cli.boundary import command_boundary\n"
    script += "with command_boundary('mlff-exp'):\n    input()\n"
    script += f"    for _ in range(9999): print('text')\n    print('more', file=sys.stderr)\n    sys.exit({code})"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait()) == (b"more\n", code)
    process.stderr.close()


def test_a_log_gets_no_bars_and_now_and_then_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bar(total=100, desc="NVE", unit="step") as bar:
        for step in range(100):
            now[0] = step
            bar.update()
    assert capsys.readouterr().err == "".join(f"NVE: {done}/100 step\n" for done in (31, 61, 91))


def test_progress_shares_no_lock_between_processes() -> None:
    """One that does leaves a semaphore behind when its process is killed, and Python warns of it."""
    assert isinstance(tqdm.get_lock(), type(threading.RLock()))


def test_a_busy_machine_is_told_of_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, busy = [0.0], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(machine_load, "busy_cpu_s", lambda: busy[0])
    monkeypatch.setattr(machine_load, "own_cpu_s", lambda: 0.0)
    monkeypatch.setattr(machine_load, "cpu_s_by_process", lambda: {1: ("sleep", 1.0), 7: ("md", busy[0] - 50)})
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    look = LoadMonitor()
    now[0], busy[0] = 2.0, 100.4
    look.warn("cpu")
    assert capsys.readouterr().err == ""
    busy[0] = 106.0
    look.warn("cpu")
    assert capsys.readouterr().err == (
        "mlff-exp: this machine is busy: other processes use 3.0 of 8 cores: md (7) 3.0; timings will suffer\n"
    )


@pytest.mark.parametrize(
    ("device", "visible", "handle"),
    [("cuda", None, 0), ("cuda:1", None, 1), ("cuda:1", "3,2", 2), ("cuda", "GPU-12", "GPU-12"), ("cuda", "", 0)],
)
def test_other_processes_on_a_gpu_are_told_of(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, handle: int | str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    used = {handle: [os.getpid(), 7]}
    same: list[str] = ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"]
    for name in same:
        monkeypatch.setattr(pynvml, name, lambda handle: handle)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(
        pynvml,
        "nvmlDeviceGetComputeRunningProcesses",
        lambda handle: [SimpleNamespace(pid=pid) for pid in used.get(handle, [])],
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=90))
    monkeypatch.setattr(machine_load, "cpu_s_by_process", lambda: {7: ("train", 1.0)})
    assert other_gpu_processes(device) == [f"other processes on {device}: 1 (90% busy): train (7)"]
    used.clear()
    assert other_gpu_processes(device) == []


def test_a_gpu_that_says_nothing_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", none)
    assert other_gpu_processes("cuda") == []
