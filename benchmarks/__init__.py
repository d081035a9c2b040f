"""Comparisons with other programs: the same work, timed in alternating blocks in one process."""
