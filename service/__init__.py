"""The HTTP service and its commands, on top of the model."""
