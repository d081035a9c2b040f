"""The units of work: a configuration in, a `RunResult` out, files in the run's directory."""
