"""Metrics of a trained model: one small file per metric; ``evaluate`` computes all of them."""
