"""What a sweep has once, no stage and no list of values can give."""

from __future__ import annotations

import pytest

from mlff_exp.config.config import Stage
from mlff_exp.config.errors import ConfigError
from mlff_exp.runs.preparing import join_parameters, prepare_jobs
from tests.helpers.sweeps import host_of

SHARED = [
    "hydra/launcher=basic", "hydra.job.name=x", "hydra.mode=RUN", "+hydra.foo=1", "sweep.varied=[seed]", "sweep.name=x",
    "sweep.budget_s=4", "sweep.stages=[]", "sweep.parameters.x=1", "gate_required=true", "trust=[numpy]",
    "experiment=quickstart", "tracking=offline", "tracking.directory=x",
]  # fmt: skip


@pytest.mark.parametrize("word", SHARED)
def test_a_stage_gives_none_of_them(word: str) -> None:
    host = host_of([])
    key = word.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^stage 'a': .*: a sweep has one {key}, which its runs share"):
        prepare_jobs(host, [], [Stage("a", [word])])
    host.params = {key: word.partition("=")[2]}
    with pytest.raises(ConfigError, match=rf"^hydra\.sweeper\.params: .*: a sweep has one {key}"):
        prepare_jobs(host, [], [])


@pytest.mark.parametrize("word", ["tracking=local,offline", "tracking.directory=a,b", "experiment=quickstart,phase1"])
def test_there_is_one_value_on_the_command_line(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"{word}: a sweep has one {word.partition('=')[0]}, which its jobs share"):
        join_parameters(host_of([]), [word])
    assert join_parameters(host_of([]), ["sweep.parameters.x=1,2", "seed=1,2"]) == [
        "sweep.parameters.x='1,2'",
        "seed=1,2",
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("~seed", "~seed: seed can't be left out"),
        ("+task=nve", r"\+task=nve: say task=…, without a plus"),
        ("task@x=nve", "task has one place"),
        ("gate.criteria={}", "changes nothing: a mapping is merged"),
    ],
)
def test_words_of_a_stage_are_judged_as_those_of_the_command_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_jobs(host_of([]), [], [Stage("a", [word])])
