"""Peers beside us: the same work done by other programs, timed alternately in one process."""
