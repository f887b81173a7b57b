"""What a trained model does for its users: encode, impute, generate, export."""
