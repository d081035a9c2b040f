"""Every command of README and docs is one that the program accepts, and their Python runs."""

from __future__ import annotations

import csv
import re
import shlex
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name

import pytest
from hydra import compose, initialize_config_dir

from mlff_exp.cli.schemas import register_schemas
from mlff_exp.config.config import parse_config
from mlff_exp.results.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROGRAMS = PYPROJECT["project"]["scripts"]
COMMANDS = [
    line.split("#")[0].strip()
    for page in PAGES.values()
    for text in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    for line in text.splitlines()
]
# Those within a sentence as well, but for what stands for something else: … and <this>.
COMMANDS += [
    " ".join(text.split())
    for page in PAGES.values()
    for text in re.findall(r"`([a-z-]+ [^`…<]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    if text.split()[0] in (*PROGRAMS, "make", "python", "pytest", "pip")
]
COMMANDS = sorted({command for command in COMMANDS if command})
COMMA = re.compile(r",(?![^\[{]*[\]}])")  # but not in a list or dictionary


@pytest.mark.parametrize("command", [command for command in COMMANDS if re.match("mlff-exp (?!-cd)", command)])
def test_commands_compose(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.safetensors", "mine.npz", "my.xyz"):
        Path(name).touch()
    register_schemas()
    # Launchers are plug-ins that may not be installed; test_clusters.py is about them.
    words = [word for word in shlex.split(command)[1:] if "=" in word and not word.startswith("hydra")]
    # A sweep is as good as each of its values; the first and the last stand for them.
    for position in (0, -1):
        overrides = [f"{key}={COMMA.split(value)[position]}" for key, value in (word.split("=", 1) for word in words)]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            assert parse_config(compose("config", overrides=overrides))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("mlff-exp")])
def test_programs_exist(command: str) -> None:
    name = command.split()[0]
    module, _, function = PROGRAMS[name].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text()


def programs(name: str) -> list[list[str]]:
    return [shlex.split(command)[1:] for command in COMMANDS if command.split()[0] == name]


@pytest.mark.parametrize("words", programs("python"), ids=" ".join)
def test_python_programs_know_their_options(words: list[str]) -> None:
    script = f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0]
    source = (ROOT / script).read_text()
    for option in (word for word in words[1:] if word.startswith("--")):
        assert f'"{option}"' in source


@pytest.mark.parametrize("words", programs("pytest"), ids=" ".join)
def test_pytest_gets_markers_and_files_that_exist(words: list[str]) -> None:
    markers = {text.partition(":")[0] for text in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    for before, word in pairwise(["", *words]):
        assert before != "-m" or word in markers
        assert not word.startswith("tests") or (ROOT / word).exists()


@pytest.mark.parametrize("words", programs("pip"), ids=" ".join)
def test_pip_gets_extras_and_files_that_exist(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words:
        extras = re.fullmatch(r"(?:\.|mlff-exp)\[([\w,]+)\]", word)
        assert extras is None or set(extras[1].split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])
        assert not word.endswith(".txt") or (ROOT / word).exists()


# What their Python prints, by page.
PRINTED = {
    "README": "(12, 3) StudentForceFieldCalculator(checkpoint='student.safetensors'",
    "engines": "compile/",
    "extending": "StudentForceFieldCalculator(checkpoint='mine.safetensors', engine='eager'",
    "models": "permutation  holds",
    "troubleshooting": "eager {'n_calls': 1,",
}


# Beside the calculator's own tests, which compile the same shape: what is in Inductor's cache is not compiled again.
@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```python" in text])
def test_python_runs(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL):
        exec(compile(code, page, "exec"), {})  # noqa: S102 (our own pages)
    assert PRINTED[page] in capsys.readouterr().out


FILES = re.findall(r"`mine/(\w+)/(\w+)\.yaml`.*?```yaml\n(.*?)```", PAGES["extending"], flags=re.DOTALL)


@pytest.mark.parametrize(("group", "name", "text"), FILES)
def test_files_of_ones_own_compose(
    group: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("caffeine.xyz").touch()
    (tmp_path / group).mkdir()
    (tmp_path / group / f"{name}.yaml").write_text(text)
    register_schemas()
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", f"{group}={name}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert getattr(parse_config(compose("config", overrides=overrides)), group)


def test_every_page_can_be_reached_and_every_link_leads_somewhere() -> None:
    linked = set()
    for name, text in PAGES.items():
        directory = ROOT if name == "README" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (directory / target).exists(), f"{name} links to {target}"
                linked.add((directory / target).stem)
    assert set(PAGES) - {"README"} <= linked


PROSE = {
    path.name: path.read_text()
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(path for folder in ("docs", "examples", "conf") for path in (ROOT / folder).rglob("*")
          if path.suffix in (".md", ".py", ".yaml") and "results" not in path.parts),
    )
}  # fmt: skip


def test_files_and_modules_that_are_named_are_there() -> None:
    missing = []
    for page, text in PROSE.items():
        paths = re.findall(r"\b(?:mlff_exp|tests|benchmarks|conf|hydra_plugins)/[\w/]+\.(?:py|yaml|npz)\b", text)
        missing += [(page, path) for path in paths if not (ROOT / path).exists()]
        for words in re.findall(r"\bmlff_exp((?:\.[a-z_]+)+)\b", text):
            if f"mlff_exp{words}" == METRICS.group:  # of entry points, and no module
                continue
            try:
                resolve_name(f"mlff_exp{words}")
            except (ImportError, AttributeError):
                missing.append((page, f"mlff_exp{words}"))
    assert missing == []


def test_the_headline_of_the_readme_is_that_of_its_results() -> None:
    readme = (ROOT / "README.md").read_text()
    (directory,) = set(re.findall(r"docs/results/[^/)]+-phase1", readme))
    assert (ROOT / directory / "headline.md").read_text() in readme


def test_the_verdicts_by_number_of_starts_are_those_of_their_results() -> None:
    """Every row of the table is a run of the published results, with the same numbers."""
    with (ROOT / "docs" / "results" / "2026-12-01-h200-nve-starts" / "runs.csv").open() as file:
        runs = {(run["precision"], run["run"].split("×")[1].split()[0]): run for run in csv.DictReader(file)}

    def shown(run: dict[str, str], metric: str, digits: int) -> str:
        if not run[metric]:
            return ""
        value, low, high = (f"{float(run[metric + end]):.{digits}f}" for end in ("", "_ci_low", "_ci_high"))
        zero = f"{0:.{digits}f}"
        return f"{value} [{low}, {high}]".replace(f"-{zero}", zero).replace("-", "−")

    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*?) \|(.*?)\| (.*?) \|$", PAGES["nve_validation"], re.MULTILINE)
    assert {row[:2] for row in rows} == set(runs)
    for precision, starts, heating, walk, verdict in rows:
        run = runs[precision, starts]
        assert heating == shown(run, "energy_drift_mean_mev_per_atom_per_ps", 4)
        assert walk.strip() == shown(run, "energy_walk_percent_of_thermal", 2)
        assert verdict.strip("*") == run["verdict"]
