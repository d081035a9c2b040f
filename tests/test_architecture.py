"""Data flows one way: a module knows only its own room and those before it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# config → systems → AtomicBatch → model → engine → task → RunResult → tracking → report; each room in one line.
ROOMS = [
    "config result",
    "neighbors batch data molecules systems",
    "painn legacy checkpoint",
    "prediction tracing fused engine",
    "ase_engine correctness stress calculator metrics timing kernels environment gate md ase_md checks snapshot",
    "sampling labelling packing training exploration",
    "plots tasks tasks.setup tasks.nve_files tasks.inference tasks.accuracy tasks.nve tasks.distill",
    "worker ahead",
    "acceptance figures report publish outcome tracking sync",
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
    later = {name for name in own(SOURCES[module]) if ROOM[name] > ROOM[module]}
    assert not later, f"{module} knows what comes after it: {', '.join(sorted(later))}"


def test_no_module_needs_itself() -> None:
    TopologicalSorter({module: own(path) for module, path in SOURCES.items()}).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("mlflow", {"tracking", "sync"}),
        ("rich", {"report"}),
        ("triton", {"fused"}),
        ("tblite", {"labelling"}),
        ("rdkit", {"molecules", "sampling"}),
    ],
)
def test_a_library_has_one_door(package: str, users: set[str]) -> None:
    assert {
        name for name, path in SOURCES.items() if {word.split(".")[0] for word in imported(path)} & {package}
    } == users
