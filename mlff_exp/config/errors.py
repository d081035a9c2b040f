"""Errors of a configuration that is wrong, or that can't run on this machine."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration that is wrong; the message names the bad value and the legal ones."""


class UnavailableError(ConfigError):
    """A configuration that is right but cannot run on this machine."""
