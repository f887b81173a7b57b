"""Figures and pages of a report."""
