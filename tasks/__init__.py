"""One file a family of tasks; a module whose name does not start with an underscore registers itself on import."""
