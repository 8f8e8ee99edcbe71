"""The embedded miniature: a small world, and small models trained on it."""
