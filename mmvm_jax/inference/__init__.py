"""Use of trained models: encode, impute, generate, export."""
