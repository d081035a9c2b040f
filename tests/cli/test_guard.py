"""An experiment file that someone sends: what it may say, what it may not, and what the command line allows."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlff_exp.cli.app import main
from mlff_exp.cli.guard import GuardedLoader, _refuse_unmade
from mlff_exp.cli.words import without_hydra
from mlff_exp.config.config import parse_config
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.trust import is_installed
from mlff_exp.models.registry import MODELS
from mlff_exp.models.spec import ModelSpec
from tests.helpers.command import INFERENCE, mlff_exp, results
from tests.helpers.here import CONF

EMT, LJ = "ase.calculators.emt.EMT", "ase.calculators.lj.LennardJones"
ASE = {"defaults": [{"override /model": "ase"}], "model": {}}


def loader(directory: Path, *words: str) -> GuardedLoader:
    """As the command makes it for ``-cd directory`` and these words."""
    search = create_config_search_path(str(CONF))
    search.prepend("command-line", f"file://{directory}", anchor=SearchPathQuery(provider="schema"))
    return GuardedLoader(search, words)


def sent(directory: Path, values: dict[str, Any], *words: str, name: str = "config") -> DictConfig:
    """The configuration of ``experiment=sent`` with an experiment file of these values."""
    (directory / "experiment").mkdir(exist_ok=True)
    (directory / "experiment" / "sent.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(values)}")
    words = ("experiment=sent", *words) if name == "config" else words
    return loader(directory, *words).load_configuration(name, list(words), run_mode=RunMode.RUN)


def nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b=value`` as mappings."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


STREAM = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
BAD = [
    ("hydra.callbacks", {"x": {"_target_": "sent.Callback"}}),
    ("hydra.callbacks.x", "${sweep.name}"),
    ("hydra.job.env_set", {"LD_PRELOAD": "./x.so"}),
    ("hydra.job.env_set", {"ASE_VASP_COMMAND": "x", "CXX": "x", "PYTHONPATH": "."}),
    ("hydra.job.env_copy", ["HOME"]),
    ("hydra.job_logging.handlers.console", {"()": "sent.Handler"}),
    ("hydra.job_logging.handlers.console", {"class": "sent.Handler"}),
    ("hydra.job_logging.handlers.console", {"stream": "ext://sent.stream"}),
    ("hydra.job_logging.handlers.file", {"filename": "/tmp/elsewhere.log"}),
    ("hydra.job_logging.formatters.simple", {"format": "cfg://handlers"}),
    ("hydra.job_logging.formatters.simple", {"class": "sent.Formatter"}),
    ("hydra.job_logging.filters.x", {"()": "sent.Filter"}),
    ("hydra.job_logging.handlers.console", "${sweep.parameters}"),
    ("hydra.hydra_logging.handlers.console", {"()": "sent.Handler"}),
    ("hydra.launcher", {"_target_": "sent.Launcher"}),
    ("hydra.launcher", {"setup": ["touch made"]}),
    ("hydra.launcher.x", {"_target_": "sent.Thing"}),
    ("hydra.launcher", {"partition": "gpu\ntouch made"}),
    ("hydra.launcher", {"a\ntouch made": 1}),
    ("hydra.sweeper", {"_target_": "sent.Sweeper"}),
    ("hydra.sweeper.params.x", {"_target_": "sent.Thing"}),
    ("hydra.run.dir", "/tmp/elsewhere"),
    ("hydra.run.dir", "outputs/../../elsewhere"),
    ("hydra.run.dir", "~/elsewhere"),
    ("hydra.run.dir", "${oc.env:HOME}/x"),
    ("hydra.run.dir", "${now:/tmp/elsewhere}"),
    ("hydra.run.dir", "outputs/${now:../../elsewhere}"),
    ("hydra.run.dir", "outputs/.${now:.}/elsewhere"),
    ("hydra.run.dir", "outputs/.${now:%p}./elsewhere"),
    ("hydra.sweep.dir", "../elsewhere"),
    ("hydra.sweep.subdir", "../../elsewhere"),
    ("hydra.job.name", "../../elsewhere"),
    ("hydra.job.num", "7"),
    ("hydra.runtime.output_dir", "elsewhere"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_what_would_run_code_is_refused_from_a_file_and_told_how_to_allow(
    plain: DictConfig, tmp_path: Path, key: str, value: Any
) -> None:
    composed = OmegaConf.to_container(OmegaConf.merge(plain, nested(key, value)), resolve=False)
    with pytest.raises(ConfigError, match=r"comes from a file, and .*: to allow it say trust=\[hydra\.") as refused:
        loader(tmp_path)._judge_hydra(composed)  # type: ignore[arg-type]
    word = str(refused.value).partition("trust=[")[2].partition("]")[0]
    assert key.startswith(word) or key in ("hydra.sweep.subdir", "hydra.job.num", "hydra.runtime.output_dir")
    loader(tmp_path, f"trust=[{word}]")._judge_hydra(composed)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """Hydra's part of a configuration that nobody changed."""
    composed = loader(tmp_path_factory.mktemp("plain")).load_configuration("config", [], run_mode=RunMode.RUN)
    return OmegaConf.create({"hydra": OmegaConf.to_container(composed.hydra, resolve=False)})


def test_what_files_and_groups_of_files_say_is_judged_where_it_is_composed(tmp_path: Path) -> None:
    callbacks = {"callbacks": {"x": {"_target_": "sent.Callback"}}}
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\._target_=sent\.Callback comes from a file"):
        sent(tmp_path, {"hydra": callbacks})
    assert sent(tmp_path, {"hydra": callbacks}, "trust=[hydra.callbacks]").trust == ["hydra.callbacks"]
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "sent.yaml").write_text("_target_: sent.Launcher\n")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\._target_=sent\.Launcher comes from a file"):
        sent(tmp_path, {}, "hydra/launcher=sent")


def test_a_file_is_judged_where_it_is_composed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"experiment/sent: batch_size=\[1\] must be a single value"):
        sent(tmp_path, {"batch_size": [1]})
    with pytest.raises(ConfigError, match=r"experiment/sent: hydra=\[\] must be a mapping"):
        sent(tmp_path, {"hydra": []})
    with pytest.raises(ConfigError, match=r"sweep\.varied\.0=seed comes from a file: only a sweep sets sweep.varied"):
        sent(tmp_path, {"sweep": {"varied": ["seed"]}})


@pytest.mark.parametrize(
    "values",
    [
        {"hydra": {"job_logging": {"root": {"level": "DEBUG"}, "handlers": {"console": STREAM}}, "verbose": True}},
        {"defaults": [{"override /hydra/job_logging": "none"}, {"override /hydra/hydra_logging": "default"}]},
        {"defaults": [{"override /hydra/job_logging": "stdout"}, {"override /hydra/hydra_logging": "disabled"}]},
        {"hydra": {"sweeper": {"params": {"seed": "0,1", "model.checkpoint": "student,student_small"}}}},
        {"hydra": {"run": {"dir": "here/${now:%H}"}, "sweep": {"dir": "here", "subdir": "job_${hydra.job.num}"}}},
        ASE | {"model": {"calculator": {"_target_": LJ, "rc": 5.0}}},
        ASE | {"model": {"calculator": {"_target_": "tblite.ase.TBLite", "method": "GFN1-xTB"}}},
    ],
)
def test_what_is_plain_needs_no_trust(tmp_path: Path, values: dict[str, Any]) -> None:
    assert sent(tmp_path, values).trust == []


@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
@pytest.mark.parametrize("beside", [{}, {"sweep": {"name": "x"}}])
def test_a_configuration_without_our_schema_makes_nothing(
    tmp_path: Path, mode: RunMode, beside: dict[str, Any]
) -> None:
    """Hydra makes its callbacks, launcher and logging before anybody parses the rest."""
    hydra = {"mode": "MULTIRUN", "output_subdir": None, "callbacks": {"x": {"_target_": "sent.Callback"}}}
    (tmp_path / "main.yaml").write_text(yaml.safe_dump({"hydra": hydra} | beside))
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\._target_=sent\.Callback comes from a file"):
        loader(tmp_path).load_configuration("main", [], run_mode=mode)
    (tmp_path / "main.yaml").write_text(yaml.safe_dump({"hydra": {"output_subdir": None}} | beside))
    with pytest.raises(ConfigError, match="is not based on mlff_exp's schema"):
        loader(tmp_path).load_configuration("main", [], run_mode=mode)


@pytest.mark.parametrize(
    "key",
    [
        *(f"hydra.runtime.{name}" for name in ("cwd", "output_dir", "version", "version_base", "choices.task")),
        "hydra.job.config_name",
        "hydra.job.override_dirname",
    ],
)
@pytest.mark.parametrize("words", [(), ("trust=[hydra.run.dir]",)])
def test_what_hydra_finds_out_is_refused_from_a_file(tmp_path: Path, key: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=x comes from a file"):
        sent(tmp_path, nested(key, "x"), *words)


def test_a_launcher_that_makes_nothing_is_refused(plain: DictConfig) -> None:
    hydra = OmegaConf.to_container(plain.hydra, resolve=False)
    assert isinstance(hydra, dict)
    _refuse_unmade(hydra)
    with pytest.raises(ConfigError, match=r"hydra\.launcher makes nothing: choose one by"):
        _refuse_unmade(hydra | {"launcher": {"x": 1}})
    with pytest.raises(ConfigError, match=r"hydra\.runtime=None must be a mapping"):
        _refuse_unmade(hydra | {"runtime": None})


def test_the_help_of_hydra_is_shown(tmp_path: Path) -> None:
    """It is composed of Hydra's own part alone, which has our rules as well."""
    assert loader(tmp_path).load_configuration(None, [], run_mode=RunMode.RUN).hydra.hydra_help.template
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "sent.yaml").write_text("_target_: sent.Launcher\n")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\._target_=sent\.Launcher comes from a file"):
        loader(tmp_path).load_configuration(None, ["hydra/launcher=sent"], run_mode=RunMode.RUN)


def test_a_launcher_takes_resources_from_a_file_and_no_commands(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    values: dict[str, Any] = {"defaults": [{"override /hydra/launcher": "slurm_gpu"}]}
    values["hydra"] = {"launcher": {"partition": "gpu", "mem_gb": 8, "account": "p-1", "gres": "gpu:a100:1"}}
    assert sent(tmp_path, values).hydra.launcher.partition == "gpu"
    for bad in ({"setup": ["touch made"]}, {"additional_parameters": {"wrap": "x"}}, {"submitit_folder": "/x"}):
        values["hydra"]["launcher"] = bad
        with pytest.raises(ConfigError, match=r"hydra\.launcher\..* comes from a file"):
            sent(tmp_path, values)


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x._target_=mine.Callback",
        "+hydra.job.env_set.A=1",
        "+hydra.job.env_set={A:1,B:x}",
        "hydra.run.dir=/tmp/elsewhere",
        "hydra.sweep.dir=../elsewhere",
        "hydra.searchpath=[file:///tmp]",
    ],
)
def test_the_command_line_is_taken_at_its_word(tmp_path: Path, word: str) -> None:
    assert sent(tmp_path, {}, word).trust == []


def test_a_stage_does_not_speak_for_the_command_line(tmp_path: Path) -> None:
    """Nor does it when the same key was typed with another value."""
    typed = "+hydra.job.env_set.A=1"
    guard = loader(tmp_path, typed)
    master = guard.load_configuration("config", [typed], run_mode=RunMode.MULTIRUN)
    for word in ("++hydra.job.env_set.A=2", "+hydra.job.env_set.B=1", "+hydra.callbacks.x._target_=sent.C"):
        with pytest.raises(ConfigError, match="comes from a file"):
            guard.load_sweep_config(master, [word])


def test_a_search_path_of_a_file_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sent_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    main = {"defaults": ["config", "_self_"], "hydra": {"searchpath": ["pkg://sent_module"]}}
    (tmp_path / "main.yaml").write_text(yaml.safe_dump(main))
    with pytest.raises(ConfigError, match=r"pkg://sent_module\] comes from a file"):
        sent(tmp_path, {}, name="main")
    guard = loader(tmp_path)
    with pytest.raises(ConfigError, match=r"pkg://sent_module\] comes from a file"):
        guard.load_configuration("config", ["hydra.searchpath=[pkg://sent_module]"], run_mode=RunMode.RUN)
    main["hydra"] = {"searchpath": [f"file://{tmp_path}"]}
    (tmp_path / "main.yaml").write_text(yaml.safe_dump(main))
    assert sent(tmp_path, {}, name="main").trust == []


def test_no_file_can_say_whom_to_trust(tmp_path: Path) -> None:
    for values in ({"trust": ["hydra.callbacks"]}, {"trust": "${sweep.parameters}"}):
        with pytest.raises(ConfigError, match="the command line alone can say whom to trust"):
            sent(tmp_path, values)
    assert sent(tmp_path, {"trust": ["hydra.launcher"]}, "trust=[my_package]").trust == ["my_package"]
    guard = loader(tmp_path)
    master = guard.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    with pytest.raises(ConfigError, match="the command line alone can say whom to trust"):  # of stages and params
        guard.load_sweep_config(master, ["trust=[hydra.callbacks]"])
    with pytest.raises(ConfigError, match=r"hydra\.overrides is Hydra's record of the command line"):
        sent(tmp_path, nested("hydra.overrides.task", ["trust=[hydra.callbacks]"]))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trust=mine", r"must be a list of names: trust=\["),
        ("trust=[hydra.callback]", "is neither the top-level name of a package nor one of: hydra.callbacks, "),
        ("trust=[mine.module]", "is neither the top-level name of a package"),
        ("trust=[os]", "os is a module of Python itself"),
    ],
)
def test_whom_to_trust_is_a_list_of_packages_and_features(tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(tmp_path, word)


@pytest.mark.parametrize("word", ["sweep.id=abc", "++sweep.gate_decision=GO"])
def test_nobody_but_the_sweeper_says_what_a_sweep_found(tmp_path: Path, word: str) -> None:
    key, value = word.lstrip("+").split("=")
    for typed in (True, False):
        with pytest.raises(ConfigError, match=f"only a sweep sets {key}, for its own runs"):
            sent(tmp_path, {} if typed else nested(key, value), *([word] if typed else []))
    with pytest.raises(ConfigError, match=f"only a sweep sets {key}"):
        sent(tmp_path, nested(key, "${sweep.parameters.x}") | {})
    guard = loader(tmp_path)
    master = guard.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    guard.allow_sweep_words("abc", "GO", "hydra.sweep.dir=/elsewhere")
    launched = pickle.loads(pickle.dumps(guard))  # noqa: S301 — as launchers send it
    assert launched.load_sweep_config(master, [word, "hydra.sweep.dir=/elsewhere"]).sweep.name == "sweep"
    with pytest.raises(ConfigError, match="only a sweep sets"):
        launched.load_sweep_config(master, ["sweep.id=other"])


@pytest.mark.parametrize("name", ["../x", ""])
def test_names_of_gates_and_sweeps_are_plain_before_a_directory_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"gate\.name=.* must be made of letters, digits"):
        parse_config(without_hydra(sent(tmp_path, {"gate": {"name": name}})))
    with pytest.raises(ConfigError, match=r"sweep\.name=.* must be made of letters, digits"):
        sent(tmp_path, {"sweep": {"name": name}})


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        ({"_target_": "ase.calculators.vasp.Vasp", "command": "touch made"}, r"trust=\[ase\]"),
        ({"_target_": "ase.calculators.lammpslib.LAMMPSlib"}, r"trust=\[ase\]"),
        ({"_target_": "ase.calculators.espresso.Espresso", "profile": "x"}, r"trust=\[ase\]"),
        ({"_target_": "sent_calculator.Calculator"}, r"trust=\[sent_calculator\]"),
        ({"_target_": "numpy.load"}, r"trust=\[numpy\]"),
        ({"_target_": "${oc.env:WHAT}"}, r"trust=\[sent_calculator\]"),
        ({"_target_": "subprocess.Popen", "args": "touch made"}, "subprocess is a module of Python itself"),
        ({"_target_": "/tmp/x.py"}, "is no import path"),
        ({"_target_": ["os", "system"]}, "is no import path"),
    ],
)
def test_a_calculator_of_a_file_is_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calculator: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("WHAT", "sent_calculator.Calculator")
    with pytest.raises(ConfigError, match=message):
        sent(tmp_path, ASE | {"model": {"calculator": calculator}})


@pytest.mark.parametrize(
    "argument",
    [{"label": "/abs/label/x"}, {"directory": "/abs"}, {"restart": "x"}, {"_args_": ["x", None, "/abs/label/x"]}],
)
def test_a_plain_calculator_of_a_file_makes_no_directories(tmp_path: Path, argument: dict[str, Any]) -> None:
    (key,) = argument
    values = ASE | {"model": {"calculator": {"_target_": LJ, **argument}}}
    with pytest.raises(ConfigError, match=rf"model\.calculator\.{key}.* comes from a file, and lets a calculator make"):
        sent(tmp_path, values)
    assert sent(tmp_path, values, "trust=[ase]").trust == ["ase"]
    typed = ["model=ase", f"model.calculator._target_={LJ}", "+model.calculator.label=/abs/label/x"]
    assert sent(tmp_path, {}, *typed).model.calculator.label == "/abs/label/x"


def test_one_interpolation_for_a_calculator_is_judged_by_what_it_stands_for(tmp_path: Path) -> None:
    parameters = {"c": {"_target_": LJ, "label": "/abs/label/x"}}
    values = ASE | {"model": {"calculator": "${sweep.parameters.c}"}, "sweep": {"parameters": parameters}}
    with pytest.raises(ConfigError, match=r"model\.calculator\.label=/abs/label/x comes from a file, and lets"):
        sent(tmp_path, values)


def test_a_file_resumes_no_sweep_outside_the_current_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.resume=.* comes from a file, and is no directory below"):
        sent(tmp_path, {"sweep": {"resume": str(tmp_path)}})
    assert sent(tmp_path, {}, f"sweep.resume={tmp_path}").sweep.resume == str(tmp_path)


def test_the_command_line_may_name_an_installed_package_and_its_arguments(tmp_path: Path) -> None:
    typed = ["model=ase", "model.calculator._target_=ase.calculators.vasp.Vasp"]
    assert sent(tmp_path, {}, *typed).trust == ["ase"]
    assert sent(tmp_path, {}, *typed, "+model.calculator.command=vasp").trust == ["ase"]
    with pytest.raises(ConfigError, match=r"model\.calculator\.command=touch made comes from a file"):
        sent(tmp_path, ASE | {"model": {"calculator": {"command": "touch made"}}}, *typed)
    with pytest.raises(ConfigError, match=r"trust=\[not_there\]"):
        sent(tmp_path, {}, "model=ase", "model.calculator._target_=not_there.Calculator")
    swept = loader(tmp_path, "model=ase", "model.calculator._target_=numpy.a.A,scipy.b.B")
    master = swept.load_configuration("config", ["model=ase"], run_mode=RunMode.MULTIRUN)
    words = ["model=ase", "model.calculator._target_=scipy.b.B"]
    assert swept.load_sweep_config(master, words).trust == ["scipy"]
    with pytest.raises(ConfigError, match=r"trust=\[torch\]"):
        swept.load_sweep_config(master, [words[0], "model.calculator._target_=torch.b.B"])


def test_a_module_beside_is_no_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it imported it would end this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_calc.py").write_text("raise SystemExit('imported')")
    (tmp_path / "scipy.py").write_text("raise SystemExit('imported')")
    typed = ["model=ase", "model.calculator._target_=my_calc.Calculator"]
    with pytest.raises(ConfigError, match=r"trust=\[my_calc\].*; my_calc is in the current directory"):
        sent(tmp_path, {}, *typed)
    assert str(tmp_path) not in sys.path
    assert sent(tmp_path, {}, *typed, "trust=[my_calc]").trust == ["my_calc"]
    assert sys.path[-1] == str(tmp_path)
    assert is_installed("scipy")
    sys.path.insert(0, str(tmp_path))  # as `python -m` does
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
            del sys.modules[name]
        assert not is_installed("scipy")


def test_a_distribution_that_only_pythonpath_reaches_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    information = there / "foreign_calc-1.0.dist-info"
    information.mkdir(parents=True)
    elsewhere.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign_calc\nVersion: 1.0\n")
    (information / "top_level.txt").write_text("foreign_calc\n")
    (there / "foreign_calc.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(there)
    assert not is_installed("foreign_calc")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(there)])
    assert is_installed("foreign_calc")
    # Elsewhere it counts only if it was installed to be edited.
    (there / "foreign_calc.py").rename(elsewhere / "foreign_calc.py")
    monkeypatch.syspath_prepend(elsewhere)
    assert not is_installed("foreign_calc")
    (information / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    assert is_installed("foreign_calc")


CALCULATOR = """
from ase.calculators.lj import LennardJones

class Mine(LennardJones):
    pass
"""


def test_a_trusted_module_of_the_current_directory_is_found_in_every_job(tmp_path: Path) -> None:
    """By the command, which has no current directory to search."""
    (tmp_path / "my_calc.py").write_text(CALCULATOR)
    command = "import sys; sys.path = [p for p in sys.path if p]; from mlff_exp.__main__ import main; main()"
    words = [word for word in INFERENCE if not word.startswith("engine=")]
    finished = subprocess.run(
        [sys.executable, "-c", command, "-m", *words, "model=ase", "model.calculator._target_=my_calc.Mine", "seed=0",
         "tracking=offline", "trust=[my_calc]"],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    assert (result.tags["engine.ran"], result.config["trust"]) == ("ase/Mine", ["my_calc"])


def test_the_command_refuses_before_hydra_makes_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "sent.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    (tmp_path / "experiment" / "sent.yaml").write_text(
        "# @package _global_\nhydra: {callbacks: {x: {_target_: sent.Callback}}}\n"
    )
    finished = mlff_exp(tmp_path, "-cd", ".", "experiment=sent", "seed=1")
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert "hydra.callbacks.x._target_=sent.Callback comes from a file" in line
    assert {path.name for path in tmp_path.iterdir()} == {"experiment", "sent.py"}


def test_no_pickle_is_run_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mlff-exp", "--experimental-rerun", "config.pickle"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "reads a pickle, which can run any code" in capsys.readouterr().err


@dataclass
class PlantedModel:
    """Options of which one names code."""

    name: str = "planted"
    network: str = "planted:network"
    width: int = 8


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of an installed package."""
    monkeypatch.setattr(MODELS, "_specs", dict(MODELS._specs))
    monkeypatch.setattr(ConfigStore.instance(), "repo", deepcopy(ConfigStore.instance().repo))
    MODELS.register(ModelSpec("planted", PlantedModel, "", "planted:make", code="network"))


@pytest.mark.parametrize(("model", "key"), [("torch", "factory"), ("planted", "network")])
@pytest.mark.parametrize("path", ["ase.build:molecule", "mlff_exp.models:load_checkpoint", "mine:make", "os:getcwd"])
@pytest.mark.usefixtures("planted")
def test_a_file_names_no_code_that_makes_a_model(tmp_path: Path, model: str, key: str, path: str) -> None:
    file = {"defaults": [{"override /model": model}], "model": {key: path}}
    with pytest.raises(ConfigError, match=rf"model\.{key}={path}"):
        sent(tmp_path, file)
    # An interpolation that was typed names what the file holds.
    with pytest.raises(ConfigError, match=rf"model\.{key}={path}"):
        sent(tmp_path, {"sweep": {"parameters": {"x": path}}}, f"model={model}", f"model.{key}=${{sweep.parameters.x}}")


@pytest.mark.usefixtures("planted")
def test_code_that_a_package_has_as_its_default_needs_no_trust(tmp_path: Path) -> None:
    assert sent(tmp_path, nested("model.width", 3), "model=planted").model.width == 3


@pytest.mark.parametrize(
    ("model", "key", "argument"), [("torch", "factory", "arguments.width"), ("planted", "network", "width")]
)
@pytest.mark.usefixtures("planted")
def test_the_command_line_names_installed_code_with_arguments_of_its_own(
    tmp_path: Path, model: str, key: str, argument: str
) -> None:
    words = (f"model={model}", f"model.{key}=ase.build:molecule")
    assert sent(tmp_path, {}, *words, f"++model.{argument}=3").trust == ["ase"]
    of_file = nested(f"model.{argument}", 3)
    with pytest.raises(ConfigError, match=rf"model\.{argument}=3 comes from a file, and is an argument of ase\.build:"):
        sent(tmp_path, of_file, *words)
    assert sent(tmp_path, of_file, *words, "trust=[ase]").trust == ["ase"]


@pytest.mark.parametrize("word", ["cold_compile=7", "seed='1_0'", "timeout_s=' 5 '", "sweep.name=true"])
def test_the_command_line_and_files_say_plain_values(tmp_path: Path, word: str) -> None:
    key, value = word.split("=")
    with pytest.raises(ConfigError, match=rf"{key}=.* must be"):
        sent(tmp_path, {}, word)
    values: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
    with pytest.raises(ConfigError, match=rf"{key}=.* must be"):
        sent(tmp_path, values)


def test_shipped_files_say_plain_values(tmp_path: Path) -> None:
    sent(tmp_path, {"seed": 3, "cold_compile": True}, "gate=off", "task=nve", "task.systems=[benzene]")
