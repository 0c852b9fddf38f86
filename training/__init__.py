"""Training: from data to a published checkpoint. Knows the model and not the service."""
