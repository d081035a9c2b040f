"""``python -m mlff_exp`` is the command ``mlff-exp``."""

from mlff_exp.cli.commands import main

if __name__ == "__main__":
    main()
