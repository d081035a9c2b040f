"""The command ``mlff-exp check``: which properties of a force field hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import hydra._internal.hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.cli.app import CONF, CONFIG_NAME
from mlff_exp.cli.boundary import OneLineParser, command_boundary, end_command
from mlff_exp.cli.errors import composing_errors, explain_error
from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.common import add_version, mask_secrets, replace_attribute
from mlff_exp.config import NATIVE, Config, ConfigError, parse_config, rename_word
from mlff_exp.runs import EXIT_NO_GO, EXIT_REFUSED
from mlff_exp.tasks import described_systems, on_this_machine, prepare_model
from mlff_exp.testing import PropertyResult, check, markdown_table

PROGRAM = "mlff-exp check"
WORDS = ("model", "system", "trust", "device", "seed")
AS_EVERY_CHECK = ("engine=eager", "precision=fp64")


@command_boundary(PROGRAM)
def check_main() -> None:
    """Command line of ``mlff-exp check``."""
    parser = OneLineParser(
        prog=PROGRAM,
        description="Try properties of a force field in FP64: symmetries, forces and stress against differences of the "
        "energy, smoothness at the cutoff, padding, skin, batches.",
        epilog="Ends with 0 if all hold, 3 if one does not, 2 if the words are wrong.",
    )
    add_version(parser)
    parser.add_argument("words", nargs="*", help="model=… system=… trust=[…] device=… seed=…, as for a run")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page instead of lines")
    arguments = parser.parse_args()
    try:
        config = on_this_machine(_config(arguments.words))
        results = _checked(config, quiet=arguments.markdown)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        end_command(PROGRAM, explain_error(error), EXIT_REFUSED)
    if arguments.markdown:
        model = " ".join(word for word in arguments.words if word.startswith("model")) or f"model={config.model.name}"
        print("\n".join(markdown_table({f"`{mask_secrets(model)}`": results})))
    if any(result.holds is False for result in results):
        sys.exit(EXIT_NO_GO)


def _config(words: Sequence[str]) -> Config:
    """Compose the configuration of the words, by the rules of trust of a run.

    Raises:
        ConfigError: a word is wrong, or has no meaning here.
    """
    renamed = [rename_word(word) for word in words]
    for word in renamed:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in WORDS:
            raise ConfigError(f"{word!r} has no meaning here: give {'=…, '.join(WORDS)}=… and their options")
    with (
        replace_attribute(hydra._internal.hydra, "ConfigLoaderImpl", partial(GuardedLoader, words=renamed)),
        composing_errors(),
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        return parse_config(compose(CONFIG_NAME, overrides=[*AS_EVERY_CHECK, *renamed]))


def _checked(config: Config, *, quiet: bool) -> Sequence[PropertyResult]:
    """Check the model of a configuration on the first of its systems.

    Raises:
        ConfigError: there is no such model or system, or no engine of ours evaluates the model.
    """
    if config.engine.name == NATIVE:
        raise ConfigError(f"model={config.model.name} runs as it is: only a model that our engines evaluate is checked")
    subject = prepare_model(config)
    assert subject.checkpoint is not None
    atoms = next(iter(described_systems(config, subject).values()))
    say = (lambda _: None) if quiet else lambda line: print(mask_secrets(line), flush=True)
    try:
        return check(subject.checkpoint.model, atoms, seed=config.seed, device=config.device, say=say)
    except ValueError as error:
        raise ConfigError(f"model={config.model.name}: {error}") from error
