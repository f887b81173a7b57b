"""From a configuration to networks that encode and decode; likelihoods; a trained model and its prior."""
