"""Every command of README and docs is one that the program accepts, and the README's Python runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from mlff_exp import config as schema

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = [
    line.split("#")[0].strip()
    for page in PAGES
    for text in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    for line in text.splitlines()
]
COMMA = re.compile(r",(?![^\[{]*[\]}])")  # but not in a list or dictionary


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("mlff-exp ")])
def test_commands_compose(command: str) -> None:
    schema.register()
    # Launchers are plug-ins that may not be installed; test_clusters.py is about them.
    words = [word for word in shlex.split(command)[1:] if "=" in word and not word.startswith("hydra")]
    # A sweep is as good as each of its values; the first and the last stand for them.
    for position in (0, -1):
        overrides = [f"{key}={COMMA.split(value)[position]}" for key, value in (word.split("=", 1) for word in words)]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            assert schema.parse(compose("config", overrides=overrides))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("mlff-exp")])
def test_programs_exist(command: str) -> None:
    name = command.split()[0]
    module, _, function = PROGRAMS[name].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("code", [text for language, text in BLOCKS if language == "python"])
def test_python_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own README)
    assert "(12, 3) StudentForceFieldCalculator(checkpoint='student.safetensors'" in capsys.readouterr().out
