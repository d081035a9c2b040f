"""The additions of an installed package: an engine, a model and a metric."""
