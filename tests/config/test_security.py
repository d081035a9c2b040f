"""Configurations and files come from strangers."""

from __future__ import annotations

import io
import logging
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from hydra import compose, initialize_config_dir

from mlff_exp.cli.schemas import register_schemas
from mlff_exp.common import secrets
from mlff_exp.common.secrets import mask_logs, mask_secrets
from mlff_exp.config.config import parse_config
from mlff_exp.config.errors import ConfigError
from mlff_exp.distill.exploration import ExploredFrames
from mlff_exp.dynamics.restart import load_state
from mlff_exp.models.checkpoint import CheckpointError, load_checkpoint
from mlff_exp.results.result import STATE_FILE, RunResult
from mlff_exp.runs import worker
from mlff_exp.runs.worker import _child
from mlff_exp.structures.datasets import Dataset, Shard
from mlff_exp.tasks.machine import check_engines
from mlff_exp.tasks.recorded import requested_values, resolve_config
from mlff_exp.tasks.setup import prepare_model
from tests.helpers.command import mlff_exp, results
from tests.helpers.here import CONF
from tests.helpers.server import free_port

ROOT = CONF.parent


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_no_checkpoint_is_unpickled(tmp_path: Path, name: str, write: Callable[[Any, Path], object]) -> None:
    """A pickle that would make a file when it is read."""
    path, made = tmp_path / name, tmp_path / "made"
    write({"model_state_dict": Bomb(made), "config": {}}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(str(path))
    assert not made.exists()


@pytest.mark.parametrize(
    "load",
    [Dataset.load, Shard.load, ExploredFrames.load, lambda path: load_state(path.parent, {}, torch.device("cpu"))],
)
def test_no_array_is_unpickled(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path, made = tmp_path / STATE_FILE, tmp_path / "made"
    names = (*Dataset.__dataclass_fields__, "failures", "names", "numbers", "positions", "exploded", "identity")
    arrays_of_objects: dict[str, Any] = dict.fromkeys(names, np.array([Bomb(made)], dtype=object))
    np.savez(path, **arrays_of_objects)
    with pytest.raises(ValueError, match=r"it has unknown arrays|it has no array"):
        load(path)
    assert not made.exists()
    with np.load(path, allow_pickle=True) as arrays:
        assert len(arrays["identity"]) == 1
    assert made.exists(), "the bomb is none"


def calculator(*overrides: str) -> Any:
    return prepare_model(
        parse_config(compose("config", overrides=["model=ase", "device=cpu", "trust=[tests]", *overrides]))
    )


def emt_or_not(kind: str) -> EMT:
    """A function that is annotated to return a calculator, which a configuration may call."""
    assert kind == "emt"
    return EMT()


def test_calculators_are_reached() -> None:
    for target in ("ase.calculators.emt.EMT", "tests.config.test_security.emt_or_not"):
        words = ["+model.calculator.kind=emt"] if target.endswith("not") else []
        assert calculator(f"model.calculator._target_={target}", *words).engine.name == "ase/EMT"


@pytest.mark.parametrize(
    "target", ["os.getcwd", "subprocess.Popen", "builtins.eval", "pathlib.Path", "mlff_exp.models.load_checkpoint"]
)
def test_nothing_but_calculators_is_reached(target: str) -> None:
    with pytest.raises(ConfigError, match="neither an ASE calculator nor a function annotated"):
        calculator(f"model.calculator._target_={target}")


def test_targets_among_the_arguments_are_not_followed() -> None:
    words = ["model.calculator._target_=ase.calculators.emt.EMT", "+model.calculator.atoms._target_=os.getcwd"]
    with pytest.raises(ConfigError, match=r"an argument of ase\.calculators\.emt\.EMT has a _target_ of its own"):
        calculator(*words)


@pytest.mark.parametrize("name", ["../escape", "/tmp/x", "a b", "..", ""])
def test_the_name_of_a_sweep_stays_in_its_directory(name: str) -> None:
    with pytest.raises(ConfigError, match="must be made of letters, digits"):
        parse_config(compose("config", overrides=[f"sweep.name='{name}'"]))


@pytest.mark.parametrize("name", ["../../escape", "ben/zene"])
def test_systems_are_names_and_no_paths(name: str) -> None:
    with pytest.raises(ConfigError, match="is not one of"):
        parse_config(compose("config", overrides=[f"system.name='{name}'"]))
    with pytest.raises(ConfigError, match="is not one of"):
        parse_config(compose("config", overrides=["task=nve", f"task.systems=['{name}']"]))


@pytest.mark.parametrize("name", ["../../escape", "a/b", "..", ""])
@pytest.mark.parametrize("system", ["file", "water_box"])
def test_names_of_other_systems_are_no_paths_either(tmp_path: Path, system: str, name: str) -> None:
    """They become parts of names of files."""
    (tmp_path / "water.xyz").touch()
    words = [f"system={system}", f"system.name='{name}'"]
    words += [f"system.path={tmp_path}/water.xyz"] if system == "file" else []
    with pytest.raises(ConfigError, match=r"system\.name=.* must be made of letters, digits"):
        parse_config(compose("config", overrides=words))
    words[1] = "system.name=my_water-2.xyz"
    assert parse_config(compose("config", overrides=words)).system.name == "my_water-2.xyz"


def test_passwords_and_tokens_are_not_recorded() -> None:
    recorded = mask_secrets(
        {
            "uri": "postgresql://user:hunter2@host/db", "plain": "https://host/path", "api_key": "hunter2",
            "nested": {"list": ["http://u:hunter2@h", "x"], "auth_token": "hunter2", "Password": "hunter2"}, "n": 3,
        }
    )  # fmt: skip
    assert "hunter2" not in str(recorded)
    assert recorded["uri"] == "postgresql://***@host/db"
    assert recorded["plain"] == "https://host/path"
    assert recorded["n"] == 3
    assert mask_secrets("at http://u:hunter@2@h/a@b and https://hunter2@h") == "at http://***@h/a@b and https://***@h"
    words = ["model=ase", "+model.calculator.token=hunter2"]
    assert "hunter2" not in str(resolve_config(compose("config", overrides=words)))
    recorded = mask_secrets(
        {
            "password": 4711, "credentials": {"user": "hunter2", "words": ["hunter2"]}, "token": None,
            "overrides": ["+model.calculator.token=hunter2", "batch_size=2"], "dirname": "seed=0,a.api_key=hunter2,b=1",
            "query": "https://host/path?page=1&token=hunter2&last=2",
        }
    )  # fmt: skip
    assert recorded == {
        "password": "***", "credentials": "***", "token": None,
        "overrides": ["+model.calculator.token=***", "batch_size=2"], "dirname": "seed=0,a.api_key=***,b=1",
        "query": "https://host/path?page=1&token=***&last=2",
    }  # fmt: skip


def test_no_file_of_a_sweep_holds_a_password(mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do MLflow's records of it, though the error repeats it."""
    secret = uuid.uuid4().hex  # one that this file does not hold: results hold the changes of the checkout
    monkeypatch.setenv("FROM_OUTSIDE", f"outside-{secret}")
    target = "model.calculator._target_=ase.calculators.emt.EMT"
    words = ["model=ase", target, f"+model.calculator.token={secret}", f"+model.calculator.server=http://u:{secret}@h"]
    words += [f"+model.calculator.passphrase='two {secret}'", f"+model.calculator.address='ftp://u:p/ {secret}@h'"]
    words += ["+model.calculator.note=${oc.env:FROM_OUTSIDE}", "+model.calculator.x=${model.calculator.note}"]
    finished = mlff_exp(tmp_path, "-m", *words, "system=file", f"system.path=http://u:{secret}@h", "seed=0")
    assert finished.returncode == 2
    assert "http://***@h" in finished.stderr
    finished = mlff_exp(tmp_path, "-m", *words, "system=water", "device=cpu", "seed=0")
    (result,) = results(tmp_path)
    assert result.config["model"]["calculator"]["note"] == "${oc.env:FROM_OUTSIDE}"
    assert secret not in finished.stdout + finished.stderr
    for path in (*tmp_path.glob("outputs/**/*"), *mlruns.rglob("*")):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:pa/ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:pa ss/x@h/db", "postgresql://***@h/db"),
        ("see http://127.0.0.1:5000 by a@b", "see http://127.0.0.1:5000 by a@b"),
        ("+model.calculator.api-key=abc def", "+model.calculator.api-key=***"),
        ("overrides: ['+a.passphrase=two words', 'x=1']", "overrides: ['+a.passphrase=***', 'x=1']"),
        ("+password: correct horse\n+n: 3", "+password: ***\n+n: 3"),
        ('+    "authorization": "Bearer abc.def",', '+    "authorization": ***'),
        ("curl -H 'X-Api-Key: abc' host", "curl -H 'X-Api-Key: ***' host"),
        ("user=x pwd=hunter2 host=y", "user=x pwd=*** host=y"),
        ("{'private_key': 'abc', 'n': 1}", "{'private_key': ***, 'n': 1}"),
        ("+key = AKIAABCDEFGHIJKLMNOP", "+key = ***"),
        ("hydra.job.env_set.AWS=abc", "hydra.job.env_set.AWS=***"),
        ("the author has a compass and n_tokens atoms", "the author has a compass and n_tokens atoms"),
    ],
)
def test_secrets_in_texts(text: str, expected: str) -> None:
    assert mask_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    ["a" * 99_999 + " token=x", "a.b-" * 30_000 + " token", "token" * 20_000, "a://b:" * 9999],
    ids=["word", "marks", "keys", "addresses"],
)
def test_masking_a_long_text_takes_no_minutes(text: str) -> None:
    started = time.monotonic()
    mask_secrets(text)
    assert time.monotonic() - started < 5


def test_what_an_environment_variable_gives_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_learned", set())
    monkeypatch.setenv("GIVEN", "xyzzy-4711")
    monkeypatch.setenv("SIZE", "16")
    monkeypatch.setenv("HOW", "fp64")
    words = ["model=ase", "+model.calculator.x=${oc.env:GIVEN}", "+model.calculator.y=${model.calculator.x}/z"]
    words += ["+model.calculator.z=[a,${oc.env:GIVEN}]", "batch_size=${oc.env:SIZE}", "timeout_s=${oc.env:UNSET,60}"]
    composed = compose("config", overrides=[*words, "precision.name=${oc.env:HOW}"])
    config, recorded = parse_config(composed), requested_values(composed)
    assert config.model.calculator["y"] == "xyzzy-4711/z"
    calculator = recorded["model"]["calculator"]
    assert (calculator["x"], calculator["y"]) == ("${oc.env:GIVEN}", "${oc.env:GIVEN}")
    assert calculator["z"] == ["a", "${oc.env:GIVEN}"]
    assert (recorded["batch_size"], recorded["timeout_s"]) == (16, 60)
    assert mask_secrets("no answer from xyzzy-4711") == "no answer from ***"
    for words in (
        ["model.checkpoint=${oc.env:GIVEN}"],
        ["device=${oc.env:GIVEN}"],
        ["task.baselines=['${oc.env:GIVEN}']"],
    ):
        with pytest.raises(ConfigError) as refused:
            check_engines(parse_config(compose("config", overrides=words)))
        assert "xyzzy" not in mask_secrets(str(refused.value))
    for name in ("sweep.name", "gate.name"):
        with pytest.raises(ConfigError, match=f"{name}=.* would show the value of an environment variable"):
            parse_config(compose("config", overrides=[f"{name}=${{oc.env:GIVEN}}"]))


def test_what_is_logged_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    mask_logs()
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        logging.getLogger("x").exception("at %s", "http://u:hunter2@h")
    assert "at http://***@h" in stream.getvalue()
    assert "ValueError: password=***" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("argument", ["+model.calculator.x=[{_target_:os.getcwd}]", "+model.calculator._partial_=true"])
def test_instructions_among_the_arguments_are_not_followed(argument: str) -> None:
    with pytest.raises(ConfigError, match="which is not followed"):
        calculator(f"model.calculator._target_={EMT.__module__}.EMT", argument)


@pytest.mark.parametrize("traceback", [False, True])
def test_the_password_of_a_server_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traceback: bool) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1" if traceback else "0")
    refused = mlff_exp(tmp_path, "tracking=server", "device=cpu", "engine=eager")
    assert refused.returncode == 2
    assert "no answer from the server" in refused.stderr.splitlines()[-1]
    assert ("Traceback" in refused.stderr) == traceback
    assert "hunter2" not in refused.stdout + refused.stderr


def test_an_error_that_repeats_a_password_is_recorded_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise ValueError("no answer from http://user:hunter2@host")

    monkeypatch.setattr(worker, "_task", failing)
    monkeypatch.setattr(worker, "begin_session", lambda: None)
    _child(parse_config(compose("config")), {}, tmp_path, None)
    result = RunResult.load(tmp_path)
    assert result.failure is not None
    assert result.failure.message == "no answer from http://***@host"
    assert "hunter2" not in (tmp_path / "traceback.txt").read_text()


def test_the_ui_listens_to_this_machine_only() -> None:
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "/mlflow ui" in line)
    assert "--host 127.0.0.1 " in line
