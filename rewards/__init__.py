"""One file a reward signal; every module here that does not start with an underscore registers itself when imported."""
