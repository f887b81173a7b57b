"""Models: encoders and decoders built from a configuration, likelihoods, trained models and their priors."""
