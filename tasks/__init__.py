"""One file a family of tasks; every module here that does not start with an underscore registers itself when
imported."""
