"""Values that OmegaConf would convert to another type, for each field of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import DictConfig

from mlff_exp.cli.plain_values import refuse_lenient
from mlff_exp.cli.schemas import option_types
from mlff_exp.config import Config, ConfigError, Gate, PrecisionConfig, Tracking
from mlff_exp.config.config import Stage, Sweep

WRONG: dict[type, tuple[Any, ...]] = {
    bool: (7, -1, 2, "2", "y", "t", "", 1.0),
    int: (True, 1.0, 1.5, "1.0", "1e3", "1_0", " 3 ", "", "\N{ARABIC-INDIC DIGIT THREE}"),
    float: (True, "1_0", " 5 ", "", "one", "1e"),
    str: (True, False),
}
RIGHT: dict[type, tuple[Any, ...]] = {
    bool: (True, False, 1, 0, "yes", "No", "on", "off", "TRUE"),
    int: (3, "3", "-2"),
    float: (3, 3.5, "3", "1e3", ".5", "1e400"),
    str: ("a", "", 3, 3.5),
}


def each_field() -> Iterator[tuple[type, str, type]]:
    """The dataclasses, their fields of plain types or lists of such, and these types."""
    options = [kind for kinds in option_types().values() for kind in kinds.values()]
    for kind in (Config, Stage, Sweep, Gate, Tracking, PrecisionConfig, *options):
        assert is_dataclass(kind)
        hints = get_type_hints(kind)
        for item in fields(kind):
            inner = [plain for plain in (hints[item.name], *get_args(hints[item.name])) if plain in WRONG]
            # A mapping takes any values, and what takes whole numbers and words checks them itself.
            if len(inner) == 1 and getattr(hints[item.name], "__origin__", None) is not dict:
                yield kind, item.name, inner[0]


@pytest.mark.parametrize(
    ("kind", "name", "of"), list(each_field()), ids=lambda value: getattr(value, "__name__", value)
)
def test_no_field_takes_what_would_be_converted(kind: type, name: str, of: type) -> None:
    node = DictConfig(kind)
    is_list = getattr(get_type_hints(kind)[name], "__origin__", None) is list
    if is_list:
        node[name] = [RIGHT[of][0]]
    parts = (name, "0") if is_list else (name,)
    for value in WRONG[of]:
        with pytest.raises(ConfigError, match=rf"{'.'.join(parts)}=.* must be"):
            refuse_lenient(node, parts, value)
    for value in (*RIGHT[of], None, "${seed}", "???"):
        refuse_lenient(node, parts, value)
