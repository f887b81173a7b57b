"""What ``benchmarks.multivae`` measures, one module per task."""
