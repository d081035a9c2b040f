"""The defaults of ``task=nve`` that depend on the system: the numbers that ran are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk

from mlff_exp.config.errors import ConfigError
from mlff_exp.results.naming import label
from tests.helpers.here import configured, resolved_of


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["system=benzene"], 0.5),
        (["system=water_box", "system.n_molecules=1000000", "task.duration_ps=1"], 0.5),
        (["system=copper"], 2.0),
        (["system=copper", "system.supercell=60"], 2.0),
        (["system=copper", "task.timestep_fs=0.7"], 0.7),
        (["system=copper", "task.systems=[benzene,carbon_dioxide]"], 0.5),
    ],
)
def test_the_number_is_recorded(words: list[str], expected: float) -> None:
    config, recorded = configured("task=nve", *words), resolved_of("task=nve", *words)
    assert config.task.timestep_fs == expected
    assert recorded["task"]["timestep_fs"] == expected
    assert ("timestep_fs=" in label(recorded)) == (expected != 0.5), "a label says what is not as usual"


def test_a_file_is_read_again_if_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "some.extxyz"
    words = ["task=nve", "system=file", f"system.path={path}"]
    bulk("Cu", "fcc", a=3.615, cubic=True).write(path)
    assert configured(*words).task.timestep_fs == 2.0
    bulk("MgO", "rocksalt", a=4.21, cubic=True).write(path)
    assert configured(*words).task.timestep_fs == 1.0
    path.write_text("nothing that can be read")
    assert configured(*words).task.timestep_fs == 0.5, "the run says what is wrong with the file"
    path.unlink()
    with pytest.raises(ConfigError, match="is not a file"):
        configured(*words)


@pytest.mark.parametrize(
    ("words", "ps", "kelvin"),
    [
        (["system=benzene"], 100.0, 300.0),
        (["system=ice"], 100.0, 200.0),
        (["system=silicon"], 400.0, 300.0),
        (["system=silicon", "task.systems=[benzene]"], 100.0, 300.0),
        (["system=ice", "task.temperature_k=250", "task.duration_ps=3"], 3.0, 250.0),
    ],
)
def test_length_and_temperature_are_recorded(words: list[str], ps: float, kelvin: float) -> None:
    recorded = resolved_of("task=nve", *words)["task"]
    assert (recorded["duration_ps"], recorded["temperature_k"]) == (ps, kelvin)
