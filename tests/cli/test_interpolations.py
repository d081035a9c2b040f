"""A few lines of interpolations that stand for millions of characters are refused before anything resolves them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode

from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.cli.interpolations import merged, refuse_bomb
from mlff_exp.config import ConfigError
from tests.helpers.here import CONF


def lines(reference: str, first: Any = "aaaaaaaaaa", times: int = 10) -> dict[str, Any]:
    """Ten values, each of which refers to the one above."""
    return {"a0": first} | {f"a{n}": reference.replace("#", str(n - 1)) * times for n in range(1, 10)}


def test_a_bomb_in_a_file_is_refused_where_hydra_composes(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    values = {"sweep": {"parameters": lines("${sweep.parameters.a#}")}}
    (tmp_path / "experiment" / "bomb.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(values)}")
    search = create_config_search_path(str(CONF))
    search.prepend("command-line", f"file://{tmp_path}", anchor=SearchPathQuery(provider="schema"))
    loader, started = GuardedLoader(search), time.process_time()
    with pytest.raises(ConfigError, match=r"sweep\.parameters\.a5 stands for more than 1,000,000 characters"):
        loader.load_configuration("config", ["experiment=bomb"], run_mode=RunMode.RUN)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "values",
    [
        lines("${.a#}"),
        lines("${oc.select:a#,x}"),
        lines("${oc.select:a#,'{'}"),
        lines("${oc.select:a#,'$'}"),
        lines("${oc.dict.values:a#}", {"x": 1}),
        {"x": {"y": lines("${...x.y.a#}")}},
        {f"a{n}": {f"k{k}": f"${{a{n - 1}}}" for k in range(10)} for n in range(1, 9)} | {"a0": "x"},
        {f"a{n}": [f"${{a{n - 1}[{k}]}}${{a{n - 1}}}" for k in range(9)] for n in range(1, 9)} | {"a0": "x" * 9},
        {"keys": {"k": "b"}, "b": lines("${b.a#}"), "c": "${b.${keys.k}}"},
    ],
)
def test_references_of_every_kind_are_counted(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stands for more than 1,000,000 characters"):
        refuse_bomb(values)


@pytest.mark.parametrize(
    "value",
    ["${x}", "${.x}", "${${y}}", "${oc.select:x}", "${oc.decode:'${y}{.x}'}", "${oc.decode:${oc.env:A,'$'}{x}}"],
)
def test_what_leads_back_or_anywhere_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"[xy] refers to itself, or to a key that cannot be told"):
        refuse_bomb({"x": value, "y": "$"})


def test_what_is_small_is_left_to_be_resolved() -> None:
    table = {"cpu": 1, "cuda": 2}
    small = [
        "${table.${device}}",
        "${nope}",
        "${oc.decode:${oc.env:N,5}}",
        "${now:%H}",
        "${f:[a,b],{c:${device}}}",
    ]
    refuse_bomb({"table": table, "device": "cpu", "again": "${table}", "small": small, "none": None})


def test_a_mapping_over_an_interpolation_keeps_what_that_stands_for() -> None:
    values = merged({"a": lines("${a.a#}"), "b": "${a}"}, {"b": {"c": 1}})
    assert values["b"]["c"] == 1
    with pytest.raises(ConfigError, match="stands for more than"):
        refuse_bomb(values)
    with pytest.raises(ConfigError, match="a number and a text as the same key: 1, '1'"):
        refuse_bomb({"a": {1: "x", "1": "y"}})
