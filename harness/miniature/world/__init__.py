"""The texts of the embedded world, in five languages, made from templates."""
