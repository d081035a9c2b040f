"""A file of a few lines that stands for millions of values is refused before it is read."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode

from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.common.secrets import mask_secrets
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.yaml_bounds import MAX_BYTES, refuse_yaml
from tests.helpers.here import CONF

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 7)
)


def test_a_bomb_is_refused_where_hydra_composes(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text(BOMB)
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"main\.yaml stands for more than 50,000 values"):
        GuardedLoader(create_config_search_path(str(tmp_path))).load_configuration("main", [], run_mode=RunMode.RUN)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "50,000 values"),
        ("x: &a {y: *a}", "50,000 values"),
        ("x: [" + "1," * 60_000 + "]", "50,000 values"),
        ("#" * (MAX_BYTES + 1), "1,048,576 bytes"),
        ("x: " + "[" * 20_000 + "]" * 20_000, "nested in more than 100 levels"),
        ("x: '" + "${" * 3_000 + "}" * 3_000 + "'", "nested in more than 100 levels"),
        ("seed: 010", "YAML reads 010 as another number"),
        ("task: {min_calls: 1:30}", "YAML reads 1:30 as another number"),
        ("seed: [1, 0x10]", "YAML reads 0x10 as another number"),
        ("seed: 1_000", "YAML reads 1_000 as another number"),
    ],
)
def test_what_is_too_large_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sent.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"sent.yaml.* {message}"):
        refuse_yaml(tmp_path / "sent.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed: 10\nname: '010'\ntime: 1:90\nrate: 0.5\nzero: 0\n",
        "x: [",
        "x: &a [1, 2]\ny: *a\nz: *a\n",
        "x: *unknown",
    ],
)
def test_what_is_small_or_no_yaml_is_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "sent.yaml").write_text(text)
    refuse_yaml(tmp_path / "sent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 1\n".encode("utf-16"), "codec can't decode"),
        (b"seed: " + b"9" * 5000, "Exceeds the limit"),
        (b"5", "int"),
    ],
)
def test_a_file_that_hydra_cannot_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "main.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"main\.yaml can't be read: .*{message}"):
        GuardedLoader(create_config_search_path(str(tmp_path))).load_configuration("main", [], run_mode=RunMode.RUN)


def test_our_own_files_are_small() -> None:
    for path in CONF.rglob("*.yaml"):
        refuse_yaml(path)


@pytest.mark.parametrize(
    "line", ["seed: ${oc.env:A_TOKEN}", "defaults: ['${oc.env:A_TOKEN}']", "device: ${ oc.env: A_TOKEN,x}"]
)
def test_no_message_repeats_the_value_of_an_environment_variable(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "S3CRETVALUE12345")
    (tmp_path / "sent.yaml").write_text(line)
    with contextlib.suppress(Exception):  # whatever Hydra makes of it
        GuardedLoader(create_config_search_path(str(tmp_path))).load_configuration("sent", [], run_mode=RunMode.RUN)
    assert mask_secrets("Could not load 'S3CRETVALUE12345'") == "Could not load '***'"
