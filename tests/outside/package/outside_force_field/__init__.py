"""What an installed package adds: an engine and a model."""
