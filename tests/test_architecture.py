"""Data flows one way: a package imports only what stands after it, and only the names that others make public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mlff_exp"
# A package may import those that stand after it. `calculator` is a module.
ORDER = (
    "cli", "runs", "tasks", "report", "tracking", "distill", "dynamics", "testing", "measure", "calculator",
    "engines", "models", "structures", "results", "config", "common",
)  # fmt: skip


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_of(path): path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem == "calculator"
}
PACKAGES = [name for name in ORDER if (PACKAGE / name).is_dir()]


def imported(path: Path) -> set[tuple[str, str]]:
    """Modules that a file imports from and the names it takes, in functions too; a whole module has no name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {(str(node.module), alias.name) for alias in node.names}
    return names


def public(package: str) -> dict[str, str]:
    """The public names of a package and the modules that they are from."""
    stub = ast.parse((PACKAGE / package / "__init__.pyi").read_text())
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip


def test_every_package_stands_in_the_order() -> None:
    assert {module.split(".")[0] for module in SOURCES} <= set(ORDER)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_for(package: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))
    assert text
    assert "TODO" not in text


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_go_down_the_order_and_take_public_names(module: str) -> None:
    package = module.split(".")[0]
    for source, name in imported(SOURCES[module]):
        if source.split(".")[0] != "mlff_exp":
            continue
        words = source.split(".")[1:] or [name]
        if words[0] == package:
            continue
        assert ORDER.index(words[0]) > ORDER.index(package), f"{module} imports {source}, which stands before it"
        if words[0] in PACKAGES:
            assert len(words) == 1, f"{module} reaches into {source}: import public names from mlff_exp.{words[0]}"
            assert name in public(words[0]), f"{module} imports {name}, which mlff_exp.{words[0]} does not make public"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_used_elsewhere_or_meant_for_users(package: str) -> None:
    """A name that nobody takes is not public."""
    for name, module in public(package).items():
        source = PACKAGE / package / Path(*module.split("."))
        assert source.with_suffix(".py").is_file() or source.is_dir(), (
            f"{package}: {name} is from {module}, which is not there"
        )


def test_no_module_imports_itself_through_others() -> None:
    """At import; what is imported inside a function comes later."""
    graph: dict[str, set[str]] = {}
    for module, path in SOURCES.items():
        found = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlff_exp."):
                words = str(node.module).split(".")[1:]
                for alias in node.names:
                    where = ".".join(words)
                    if where in PACKAGES:
                        where = f"{where}.{public(where).get(alias.name, '')}".rstrip(".")
                    found.add(where)
        graph[module] = found & set(SOURCES)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle of imports: {' → '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_nothing_in_the_package_needs_what_is_around_it() -> None:
    around = {"benchmarks", "examples", "hydra_plugins", "tests"}
    known = {(module, name) for module, path in SOURCES.items() for name, _ in imported(path)}
    assert not [(module, name) for module, name in known if name.split(".")[0] in around]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_tests_share_helpers_and_not_each_other(path: Path) -> None:
    found = [name for name, _ in imported(path) if name.startswith("tests.") and ".test_" in name]
    assert not found, f"{path} imports {', '.join(found)}: move what they share into tests/helpers/"


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("hydra", {"cli", "common.shell", "models.adapters.calculator"}),
        ("jinja2", {"report.html"}),
        ("mace", {"models.foreign.mace"}),
        ("mlflow", {"tracking"}),
        ("pynvml", {"measure"}),
        ("rich", {"report"}),
        ("safetensors", {"models", "engines.graph_cache"}),
        ("sevenn", {"models.foreign.sevennet"}),
        ("so3krates_torch", {"models.foreign.so3lr"}),
        ("tqdm", {"common.progress"}),
        ("triton", {"engines.fused"}),
        ("tblite", {"distill"}),
        ("rdkit", {"distill"}),
    ],
)
def test_a_library_has_one_door(library: str, users: set[str]) -> None:
    found = {
        module for module, path in SOURCES.items() if {name.split(".")[0] for name, _ in imported(path)} & {library}
    }
    outside = {module for module in found if not any(f"{module}.".startswith(f"{user}.") for user in users)}
    assert not outside, f"{library} is used outside of its door: {', '.join(sorted(outside))}"
    assert found, f"nothing uses {library} any more"


def test_what_runs_is_no_mock() -> None:
    folders = (ROOT / folder for folder in ("mlff_exp", "hydra_plugins"))
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    assert not [str(path) for path in paths if any(name.startswith("unittest") for name, _ in imported(path))]


TEXTS = ("open", "read_text", "write_text", "run", "Popen")  # what takes an encoding


OF_OTHERS = ("os", "webbrowser", "members", "distribution")  # their methods of these names take no encoding


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
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in OF_OTHERS:
                continue
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
