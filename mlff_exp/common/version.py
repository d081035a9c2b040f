"""The option ``--version``: the versions of this package and of those on which its numbers depend most."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from typing import Any

DEPENDED_ON = {"torch": "PyTorch", "hydra-core": "Hydra", "mlflow": "MLflow"}


def versions(program: str) -> str:
    """Return the versions in one line.

    Args:
        program: name of the command.
    """
    below = ", ".join(f"{name} {_of(package)}" for package, name in DEPENDED_ON.items())
    return f"{program} {_of('mlff-exp')} ({below})"


def _of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"


class ShowVersions(argparse.Action):
    """An argparse action that prints the versions and ends the command."""

    def __init__(self, option_strings: list[str], dest: str, **others: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the versions and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the versions and exit; argparse calls this."""
        print(versions(parser.prog))
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version`` to a command."""
    parser.add_argument("--version", action=ShowVersions)
