"""What an installed package adds: an engine, a model and a metric."""
