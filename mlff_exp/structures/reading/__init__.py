"""Read structure files with ASE, and refuse whatever ASE would leave out or read as another structure.

`frames` reads a file; one module for each family of formats says what is known of it.
"""
