"""Settings chosen by trials: the same number over the same range for every reward (`python -m harness tune`)."""
