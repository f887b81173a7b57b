"""A run, a sweep of runs, and the checks of their configuration."""
