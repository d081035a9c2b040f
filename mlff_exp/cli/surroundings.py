"""Remove settings of a shell, a notebook or a container that would break a run or change its measurements."""

from __future__ import annotations

import multiprocessing.util
import os
import pwd
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

from mlff_exp.common import replace_attribute

# With these variables a run would not do what its configuration says. They are removed, and a line names each.
CHANGING = {
    "TORCHDYNAMO_DISABLE": "would turn compiled engines into eager ones",
    "TORCH_COMPILE_DISABLE": "would turn compiled engines into eager ones",
    "TORCHDYNAMO_SUPPRESS_ERRORS": "would turn compiled engines into eager ones",
    "NVIDIA_TF32_OVERRIDE": "would change the precision",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "would change the precision",
    "CUDA_LAUNCH_BLOCKING": "would make every kernel wait",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "would make every allocation wait",
}
# A notebook sets this one. Figures are drawn to files, and a backend that is not installed would break the import.
DROPPED = ("MPLBACKEND",)
# An address of a socket is at most 107 bytes long, and multiprocessing adds some 30 to the temporary directory.
MAX_TEMPORARY = 70


def settle_surroundings() -> list[str]:
    """Remove settings that would break a run or change its numbers, from this process and from those it starts.

    Returns:
        A line for each variable that would have changed a measurement.

    Raises:
        OSError: there is no directory for temporary files, or the current directory was deleted; the message says what
            to do.
    """
    _directories()
    said = []
    for name, effect in CHANGING.items():
        if os.environ.pop(name, "0") not in ("", "0"):
            said.append(f"{name} is not passed on to runs: it {effect}")
    for name in DROPPED:
        os.environ.pop(name, None)
    os.environ["PYTHONUTF8"] = "1"  # for the processes that are started: other packages read and write files too
    matplotlib = find_spec("matplotlib")
    assert matplotlib is not None
    assert matplotlib.origin is not None
    # The user's style may need LaTeX, or fonts that are not installed.
    os.environ["MATPLOTLIBRC"] = str(Path(matplotlib.origin).parent / "mpl-data" / "matplotlibrc")
    if any(option.startswith("error") for option in sys.warnoptions):
        # A warning of another package must not fail a run.
        sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("error")]
        warnings.simplefilter("default")
        os.environ["PYTHONWARNINGS"] = ",".join(sys.warnoptions)
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and not _has_name():
        os.environ["USER"] = f"uid{os.getuid()}"  # compilers name their cache after the user
    return said


def _has_name() -> bool:
    """Return whether the system has a name for the user; a container may have none."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _directories() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current directory was deleted: change to one that exists") from None
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:
        raise FileNotFoundError("no temporary files can be written: set TMPDIR to a directory where they can") from None
    if len(os.fsencode(temporary)) > MAX_TEMPORARY:
        # multiprocessing makes its directory once, and this is when.
        names = ("TMPDIR", "TEMP", "TMP")
        taken = {name: os.environ.pop(name) for name in names if name in os.environ}
        try:
            with replace_attribute(tempfile, "tempdir", None):
                multiprocessing.util.get_temp_dir()
        finally:
            os.environ.update(taken)
