"""``python -m mlff_exp`` is the command ``mlff-exp``."""

from mlff_exp.cli.app import main

if __name__ == "__main__":
    main()
