"""Hydra finds sweepers in packages of this namespace."""
