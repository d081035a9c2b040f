"""Data flows one way: a module knows only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# config → systems → AtomicBatch → model → engine → Prediction → task → RunResult → tracking → report. A line is a room,
# whose modules do not know each other.
ROOMS = [
    "bars bonds checked disk drawing load masking sessions shell signals streams surroundings version",
    "arrays naming recorded typed",
    "config result metrics identity",
    "trust words",
    "neighbors data structure_checks electrons deadline",
    "batch structure_files molecules",
    "systems",
    "painn",
    "legacy",
    "checkpoint prediction tracing",
    "fused_kernels",
    "fused",
    "engine",
    "ase_engine correctness md stress",
    "calculator ase_md checks snapshot",
    "environment gate kernels timing packing sampling",
    "labelling training exploration relaxation",
    "plots showing tasks tasks.setup tasks.nve_files",
    "tasks.inference tasks.accuracy tasks.nve tasks.distill",
    "worker",
    "ahead",
    "tracking.address tracking.faults tracking.files tracking.limits",
    "outcome text tracking.store",
    "tracking.life tracking.local tracking.server",
    "tracking.markers",
    "tracking.describe",
    "tracking.upload",
    "tracking.live tracking.lookup tracking.sweeps",
    "tracking.recovery",
    "tracking",
    "command",
    "sync acceptance figures directories",
    "report",
    "publish",
    "guard",
    "__main__",
]
ROOM = {module: number for number, modules in enumerate(ROOMS) for module in modules.split()}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "mlff_exp").with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_of(path): path for path in (ROOT / "mlff_exp").rglob("*.py") if path.parent.name != "mlff_exp"}
SOURCES |= {path.stem: path for path in (ROOT / "mlff_exp").glob("*.py") if path.stem != "__init__"}


def imported(path: Path) -> set[str]:
    """Absolute names of what a file imports, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(path: Path) -> set[str]:
    """Modules of ours that a file imports."""
    parts = {name.removeprefix("mlff_exp.") for name in imported(path) if name.startswith("mlff_exp.")}
    return {part if part in SOURCES else part.rpartition(".")[0] for part in parts}


def test_every_module_has_a_room() -> None:
    assert set(SOURCES) == set(ROOM)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_import_goes_against_the_arrow(module: str) -> None:
    others = {name for name in own(SOURCES[module]) if ROOM[name] >= ROOM[module]}
    assert not others, f"{module} knows what does not stand before it: {', '.join(sorted(others))}"


def test_nothing_in_the_package_needs_what_is_around_it() -> None:
    around = {"benchmarks", "examples", "hydra_plugins", "tests"}
    known = {(module, name) for module, path in SOURCES.items() for name in imported(path)}
    assert not [(module, name) for module, name in known if name.split(".")[0] in around]


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("hydra", {"__main__", "config", "guard", "shell", "tasks.setup", "words"}),
        ("mlflow", {"sync", "tracking"}),
        ("pynvml", {"environment", "load"}),
        ("rich", {"report"}),
        ("safetensors", {"checkpoint"}),
        ("tqdm", {"bars"}),
        ("triton", {"fused", "fused_kernels"}),
        ("tblite", {"labelling"}),
        ("rdkit", {"molecules", "sampling"}),
    ],
)
def test_a_library_has_one_door(package: str, users: set[str]) -> None:
    found = {name for name, path in SOURCES.items() if {word.split(".")[0] for word in imported(path)} & {package}}
    assert {"tracking" if name.startswith("tracking.") else name for name in found} == users


TEXTS = ("open", "read_text", "write_text", "run", "Popen")  # what takes an encoding


def test_files_are_utf8_wherever_they_are_written() -> None:
    """And not in the encoding of the shell that a run was started from."""
    found = []
    for path in (
        path for folder in ("mlff_exp", "hydra_plugins", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            words = {keyword.arg for keyword in node.keywords}
            modes = [value.value for value in node.args if isinstance(value, ast.Constant)]
            if name not in TEXTS or "encoding" in words or any("b" in str(mode) for mode in modes):
                continue
            if name in ("run", "Popen") and "text" not in words:
                continue
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("os", "webbrowser", "members"):
                continue
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
