"""Every file in conf composes and passes the checks; what is wrong is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.cli.errors import explain_error
from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.cli.schemas import named_options, register_schemas
from mlff_exp.config.checks import did_you_mean
from mlff_exp.config.config import Config, parse_config, refuse_ignored
from mlff_exp.config.errors import ConfigError, UnavailableError
from mlff_exp.config.flat import changed_keys
from mlff_exp.config.systems import CRYSTALS, N_UNSEEN
from mlff_exp.config.words import PRECISIONS
from mlff_exp.engines.registry import ENGINES
from mlff_exp.structures.systems import build_systems, unseen_molecule
from mlff_exp.tasks.machine import check_engines, on_this_machine
from mlff_exp.tasks.recorded import resolve_config
from mlff_exp.tasks.registry import TASKS
from mlff_exp.tasks.unused import refuse_unused
from tests.helpers.here import CONF

GROUPS = ("task", "model", "engine", "precision", "gate", "tracking", "experiment")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
OPTIONS += [f"engine={name}" for name in ENGINES.names()]
OPTIONS += ["model=student", "model=ase", "model=sevennet", "model=so3lr"]  # model=torch has no default of its factory
OPTIONS += [f"{group}={name}" for group in ("precision", "tracking") for name in named_options()[group]]
SYSTEMS = [*named_options()["system"], *(path.stem for path in sorted((CONF / "system").glob("*.yaml")))]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_schemas()
    Plugins.instance()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str) -> Config:
    return parse_config(compose("config", overrides=list(overrides)))


def test_every_group_is_covered() -> None:
    in_code = {"engine", "model", "precision", "tracking"}
    tested = {*GROUPS, "system", "hydra", "targets"} - in_code
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == tested


def test_options_without_a_file_are_listed_and_a_file_may_add_to_them(tmp_path: Path) -> None:
    assert set(named_options()["precision"]) == set(PRECISIONS)
    loader = GuardedLoader(create_config_search_path(str(CONF)))
    for group, options in named_options().items():
        assert set(options) <= set(loader.get_group_options(group)), group
    (tmp_path / "system").mkdir()
    for name in ("mine", "water"):  # a new name, and one that we registered with other options
        lines = ["defaults:", "  - /schema/system/water_box@_here_", "  - _self_", "n_molecules: 8", "name: small_box"]
        (tmp_path / "system" / f"{name}.yaml").write_text("\n".join(lines))
        words = [f"system={name}", f"hydra.searchpath=[file://{tmp_path}]"]
        loader = GuardedLoader(create_config_search_path(str(CONF)), words)
        assert loader.load_configuration("config", words, run_mode=RunMode.RUN).system.n_molecules == 8


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str) -> None:
    group, _, name = option.partition("=")
    parsed = composed(option)
    if group != "experiment":
        assert getattr(parsed, group).name == {"water_box": "water_box_64"}.get(name, name)
    else:
        assert parsed.sweep.name == name
        assert parsed.sweep.stages


LAUNCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "slurm_gpu": ("hydra_submitit_launcher", {"gpus_per_node": 1, "tasks_per_node": 1}),
    "ray_gpu": ("hydra_ray_launcher", {"remote": {"num_gpus": 1, "num_cpus": 1, "max_calls": 1}}),
}


def test_every_launcher_is_covered() -> None:
    assert {path.stem for path in (CONF / "hydra" / "launcher").iterdir()} == set(LAUNCHERS)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_is_made(name: str) -> None:
    plugin, expected = LAUNCHERS[name]
    pytest.importorskip(f"hydra_plugins.{plugin}")
    chosen = compose("config", overrides=[f"hydra/launcher={name}"], return_hydra_config=True).hydra.launcher
    launcher = instantiate(chosen)
    found = getattr(launcher, "params", None) or launcher.ray_cfg
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_builds(name: str, tmp_path: Path) -> None:
    overrides = [f"system={name}"]
    if name == "file":
        path = tmp_path / "water.xyz"
        path.write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
        overrides.append(f"system.path={path}")
    (atoms,) = build_systems(composed(*overrides).system).values()
    assert len(atoms) >= 3
    assert atoms.pbc.any() == (name in {"water_box", *CRYSTALS})


def test_of_a_file_only_atoms_and_their_cell_are_taken(tmp_path: Path) -> None:
    fixed = molecule("H2O")
    fixed.set_constraint(FixAtoms([0, 1]))
    fixed.calc = SinglePointCalculator(fixed, energy=1.0, forces=np.zeros((3, 3)))
    fixed.write(tmp_path / "water.traj")
    (atoms,) = build_systems(composed("system=file", f"system.path={tmp_path / 'water.traj'}").system).values()
    assert not atoms.constraints
    assert atoms.calc is None
    np.testing.assert_array_equal(atoms.positions, fixed.positions)


def test_the_molecules_of_the_validation_set_are_systems() -> None:
    first, last = (unseen_molecule(number) for number in (0, N_UNSEEN - 1))
    assert first.symbols.get_chemical_formula() != last.symbols.get_chemical_formula()
    with pytest.raises(IndexError):
        unseen_molecule(N_UNSEEN)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_every_experiment_composes(path: Path) -> None:
    overrides = [f"experiment={path.stem}", "device=cpu"]
    if "batch_sizes" in composed(*overrides).sweep.parameters:
        overrides.append("sweep.parameters.batch_sizes='1,16'")
    stages = composed(*overrides).sweep.stages
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names) > 0
    jobs = []
    for stage in stages:
        parsed = OverridesParser.create().parse_overrides(stage.overrides)
        for run in BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]:
            config = composed(*overrides, *run)
            refuse_ignored(config, run)
            jobs.append((config, run))
            if stage.gate:
                assert (config.task.name, config.precision.name) == ("nve", "fp32")
    refuse_unused(jobs)


@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_commands_of_the_same_second_do_not_share_a_directory(mode: str) -> None:
    directories = [compose("config", return_hydra_config=True).hydra[mode].dir for _ in range(5)]
    assert len(set(directories)) == len(directories)


def test_the_keys_are_those_of_the_documentation() -> None:
    keys = OmegaConf.to_container(compose("config", overrides=["task=nve"]), resolve=True)
    assert isinstance(keys, dict)
    assert set(keys) >= {"task", "model", "system", "engine", "precision", "gate", "tracking"}
    assert set(keys) >= {"batch_size", "device", "seed", "timeout_s", "cold_compile"}
    assert keys["task"]["duration_ps"] == 100
    assert keys["task"]["timestep_fs"] == 0.5
    assert compose("config").task.min_calls == 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=0"], "batch_size=0 must be greater than 0"),
        (["seed=-1"], "seed=-1 must not be negative"),
        ([f"task.name={'a' * 500}"], r"task.name='a{58}… changes nothing"),
        (["task.name=nve"], "task.name='nve' changes nothing: say task=… instead"),
        (["engine.name=eager"], "engine.name='eager' changes nothing: say engine=… instead"),
        (["timeout_s=0"], r"timeout_s=0.0 must be greater than 0"),
        (["device=tpu"], r"device='tpu' is not one of: auto, cpu, cuda, cuda:<number>"),
        (["engine.mode=fast"], r"engine.mode='fast' is not one of: default, reduce-overhead, max-autotune"),
        (["+engin=eager"], r"(?s)engin is no key of ours.*legal keys: task, .*\(did you mean 'engine'\?\)"),
        (["+task.min_cals=3"], r"(?s)task\.min_cals is no key of ours.*legal keys: name, .*did you mean 'min_calls'"),
        (["system.name=benzen"], r"system.name='benzen' is not one of: .*\(did you mean 'benzene'\?\)"),
        (["precision.name=fp8"], r"precision.name='fp8' is not one of: fp64, fp32, tf32, fp16_autocast"),
        (["task.min_calls=0"], "task.min_calls=0 must be greater than 0"),
        (["task=nve", "task.timestep_fs=-1"], r"task.timestep_fs=-1.0 must be greater than 0"),
        (["task=nve", "task.duration_ps=0.01"], "holds fewer than ten frames"),
        (["task=nve", "task.systems=[water,ethanl]"], r"task.systems='ethanl' is not one of: .*did you mean 'ethanol'"),
        (
            ["task=nve", "task.systems=[unseen_200]"],
            r"task.systems='unseen_200' is not one of: .*unseen_0 … unseen_199",
        ),
        (["task=nve", "task.systems=[water,water]"], "names a molecule twice: use task.replicas"),
        (["model.checkpoint=nowhere"], r"model.checkpoint='nowhere' is neither a file nor one of: student"),
        (["system=file", "system.path=/nowhere.xyz"], r"system.path='/nowhere.xyz' is not a file"),
        (["system=water_box", "system.n_molecules=10"], "not the cube of a whole number"),
        (["task=distill", "task.molecules=0"], "task.molecules=0 must be greater than 0"),
        (["task=distill", "task.rounds=-1"], "task.rounds=-1 must not be negative"),
        (["task=distill", "task.analogues=-1"], "task.analogues=-1 must not be negative"),
        (["task=distill", "task.md_temperatures_k=[]"], r"task.md_temperatures_k=\[\] must hold a temperature"),
        (["task=distill", "task.md_temperatures_k=[300,0]"], "task.md_temperatures_k=0.0 must be greater than 0"),
        (["task=distill", "task.data_fraction=2"], "task.data_fraction=2.0 must not be above 1"),
        (["task=accuracy", "task.dataset=nowhere.npz"], "task.dataset='nowhere.npz' is neither a file nor validation"),
        (
            ["model=ase", "~model.calculator._target_"],
            "model.calculator needs a _target_, for example mlff_exp.distill",
        ),
        (["model=ase", "model.calculator._target_=null"], "model.calculator needs a _target_, for example"),
        (["sweep.targets=${seed}"], r"sweep\.targets=0 must be a list"),
        (["sweep.stages=${seed}"], r"sweep\.stages=0 must be a list"),
        (["task.baselines=${seed}"], r"task\.baselines=0 must be a list"),
        (["task.baselines=${engine.name}"], r"task\.baselines='\w+' must be a list"),
        (["task=nve", "task.systems=${system.name}"], r"task\.systems='benzene' must be a list"),
        (["task=nve", "gate.criteria=${seed}"], r"gate\.criteria=0 must be a mapping"),
        (["task=nve", "gate.criteria=${task}"], r"gate\.criteria=.* must be a mapping of its own"),
        (["model=ase", "model.calculator=${task}"], r"model\.calculator=.* must be a mapping of its own"),
    ],
)
def test_a_wrong_value_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


@pytest.mark.parametrize("group", ["task", "model", "system", "engine"])
@pytest.mark.parametrize("text", ["name: water\n", "[water]\n"])
def test_an_option_without_its_schema_is_refused_by_name(group: str, text: str) -> None:
    config = compose("config")
    with open_dict(config):
        config[group] = OmegaConf.create(text)
        begins = rf"'defaults: \[/schema/{group}/<kind>@_here_, _self_\]'"
        with pytest.raises(ConfigError, match=rf"{group}=.* has no schema: .*{begins}"):
            parse_config(config)


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("bach_size=3", ["bach_size", "legal keys: task, model", "did you mean 'batch_size'?"]),
        ("task.min_cals=3", ["min_cals", "legal keys: name, min_time_s, min_calls", "did you mean 'min_calls'?"]),
        ("batch_size=two", ["two", "Integer", "batch_size"]),
        ("system=benzen", ["system/benzen", "did you mean 'benzene'?", "water_box"]),
        ("experiment=quikstart", ["did you mean 'quickstart'?"]),
        ("engine=warp", ["engine/warp", "eager", "compile", "cuda_graph"]),
        ("system=file", ["system.path has no default"]),
        ("system.path=my.xyz", ["legal keys: name", "a structure of your own: system=file system.path=…"]),
    ],
)
def test_hydra_refusals_are_explained(override: str, messages: list[str]) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(override)
    explained = explain_error(caught.value)
    assert all(message in explained for message in messages), explained
    assert "Config search path" not in explained
    assert "append to your config" not in explained, "what is added is refused as well"


def test_an_ase_calculator_takes_no_engine_and_no_precision() -> None:
    config = composed("model=ase")
    assert on_this_machine(config).device == "cpu"
    refuse_ignored(config, ["batch_size=2", "model=ase", "task=nve"])
    for override in ("engine=eager", "engine.mode=default", "precision=fp32"):
        with pytest.raises(ConfigError, match=f"{override}: model=ase runs as it is"):
            refuse_ignored(config, ["model=ase", override])
        refuse_ignored(composed(), [override])
    with_baseline = composed("model=ase", "task=inference", "task.baselines=[eager]")
    with pytest.raises(ConfigError, match=r"task.baselines=\['eager'\]: no engine runs model=ase"):
        refuse_ignored(with_baseline, [])


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.baselines='fast' is not one of: eager, compile, cuda_graph, fused"):
        check_engines(composed("task.baselines=[eager,fast]"))


def test_a_system_beside_those_of_the_task_is_refused() -> None:
    words = ["task=nve", "task.systems=[water,ammonia]"]
    refuse_ignored(composed(*words), words)
    with pytest.raises(ConfigError, match=r"system=benzene: task.systems=\['water', 'ammonia'\] takes its place"):
        refuse_ignored(composed(*words), [*words, "system=benzene"])
    refuse_ignored(composed("task=nve", "system=benzene"), ["task=nve", "system=benzene"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=nve", "batch_size=16"], "batch_size=16: task=nve takes no batch_size; .* task.replicas"),
        (
            ["task=accuracy", "++system.name=water"],
            r"\+\+system.name=water: task=accuracy takes no system; .* task.dataset",
        ),
        (["task=distill", "engine=eager"], "engine=eager: task=distill takes no engine"),
        (["task=distill", "model.checkpoint=student"], "takes no model; what it trains is task.n_features"),
    ],
)
def test_a_word_that_no_job_takes_is_refused(words: list[str], message: str) -> None:
    config = composed(*words)
    with pytest.raises(ConfigError, match=message):
        refuse_unused([(config, words), (config, words)])
    refuse_unused([(config, words), (composed(), words)])  # inference takes them all
    refuse_unused([(config, words[:1])])


def test_every_task_ignores_keys_that_exist_and_has_options_of_its_name() -> None:
    for task in TASKS:
        assert set(task.ignores) <= {item.name for item in fields(Config)}
        assert task.options().name == task.name


def test_a_message_knows_the_other_words_for_a_task() -> None:
    register_schemas()
    for task in TASKS:
        for alias in task.aliases:
            assert did_you_mean(alias, TASKS.names()) == f" (did you mean {task.name!r}?)"


@pytest.mark.parametrize("words", [["gate.name=off"], ["gate=off", "gate.name=strict"]])
def test_no_gate_has_the_name_of_none_and_none_has_that_of_a_gate(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"gate.name='(off|strict)' with criteria: .*; off has none"):
        composed(*words)
    assert composed("gate.name=mine").gate.name == "mine"


def test_what_differs_between_two_runs_is_named() -> None:
    one, other = (resolve_config(compose("config", overrides=words)) for words in ([], ["batch_size=2", "seed=1"]))
    assert changed_keys(one, {**one, "timeout_s": 1.0, "sweep": {}}) == []
    assert changed_keys(one, other) == ["batch_size: 1 → 2", "seed: 0 → 1"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=cuda_graph"], "engine=cuda_graph needs a CUDA GPU; on device=cpu use one of: eager, compile"),
        (["engine=fused"], "engine=fused needs a CUDA GPU; on device=cpu use one of: eager, compile"),
        (
            ["task.baselines=[eager,fused]"],
            "task.baselines=fused needs a CUDA GPU; on device=cpu use one of: eager, compile",
        ),
        (["precision=tf32"], "precision=tf32 needs a CUDA GPU; on device=cpu use one of: fp64, fp32"),
    ],
)
def test_what_a_cpu_cannot_run_is_unavailable(overrides: list[str], message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        on_this_machine(composed("device=cpu", *overrides))


def test_asking_what_a_machine_can_run_changes_no_configuration() -> None:
    for words in ([], ["model=ase", "model.calculator._target_=ase.calculators.lj.LennardJones", "device=auto"]):
        given = composed(*words)
        here = on_this_machine(given)
        assert (given.device, here.device == "auto") == ("auto", False)
        assert here == replace(given, device=here.device)


def test_a_missing_gpu_is_unavailable_and_auto_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert on_this_machine(composed()).device == "cpu"
    with pytest.raises(UnavailableError, match=r"device=cuda:1: this machine has no CUDA GPU"):
        on_this_machine(composed("device=cuda:1"))


def test_a_present_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert on_this_machine(composed("engine=cuda_graph", "precision=tf32")).device == "cuda"
    with pytest.raises(
        UnavailableError, match="engine=fused has no precision=bf16_autocast; use one of: fp32, tf32, fp16"
    ):
        on_this_machine(composed("engine=fused", "precision=bf16_autocast"))
    speed = composed("experiment=quickstart").sweep.stages[1].overrides
    assert speed[1:3] == ["engine=eager,compile,fused", "precision=fp32,fp16_autocast"]


def test_an_engine_refuses_a_system_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for words in (["engine=fused"], ["engine=eager", "task.baselines=[fused]"]):
        with pytest.raises(UnavailableError, match=r"=fused can't run system=water_box: it takes no periodic systems"):
            on_this_machine(composed("system=water_box", *words))
        with pytest.raises(UnavailableError, match=r"=fused can't run system=ice: it takes no periodic systems"):
            on_this_machine(composed("system=ice", *words))
    for words in (["task=accuracy"], ["task=nve", "task.systems=[water]"], ["engine=cuda_graph"]):
        on_this_machine(composed("engine=fused", "system=water_box", *words))


def test_the_quickstart_of_a_cpu_runs_what_a_cpu_has() -> None:
    gate, speed = composed("experiment=quickstart", "device=cpu").sweep.stages
    assert gate.gate
    assert speed.overrides[1:4] == ["engine=eager,compile", "precision=fp32,bf16_autocast", "batch_size=1,8"]
    chosen = composed("experiment=quickstart", "device=cpu", "sweep.parameters.engines='eager'").sweep.stages[1]
    assert chosen.overrides[1] == "engine=eager"


def test_a_gpu_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert on_this_machine(composed("device=cuda:1")).device == "cuda:1"
    with pytest.raises(UnavailableError, match="device=cuda:2: CUDA GPUs of this machine: 2, from cuda:0 on"):
        on_this_machine(composed("device=cuda:2"))


@pytest.mark.parametrize(
    ("gpu", "arguments", "engine"),
    [
        (False, "auto", "compile"),
        (True, "auto", "cuda_graph"),
        (True, "auto,molecules", "fused"),
        (False, "auto,molecules", "compile"),
        (True, "cpu", "compile"),
        (False, "cuda", "cuda_graph"),
        (False, "cuda:1,molecules", "fused"),
    ],
)
def test_the_fast_engine_suits_device_and_systems(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, arguments: str, engine: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    register_schemas()
    assert OmegaConf.create({"engine": f"${{fast_engine:{arguments}}}"}).engine == engine


@pytest.mark.parametrize(("device", "expected"), [("cuda", "fp16_autocast"), ("cpu", "bf16_autocast")])
def test_a_device_that_is_named_is_believed(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    """A login node has no GPU, and its cluster may."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: device == "cpu")
    assert composed("experiment=quickstart", f"device={device}").sweep.stages[1].overrides[2].endswith(expected)
