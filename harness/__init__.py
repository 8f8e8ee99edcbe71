"""A benchmark of reward signals for training synthetic-data generators: tasks x rewards, one GRPO runner, one table."""
