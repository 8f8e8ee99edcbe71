"""Settings chosen by trials: the same number of them over the same range for every reward (`python -m harness tune`)."""
