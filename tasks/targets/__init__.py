"""A target from a file: what is wanted of a trained model, said in YAML (schema.py has every field, README an example).

A file names one or several terms; Phi is the sum of their values, each times its weight. A module a kind of term:

    texts.py        texts that should be likely, or are to be unlearnt; texts on which nothing should be lost
    preference.py   chosen completions over rejected ones
    weights.py      a picture in a matrix, a norm, the distance to other weights
    activations.py  hidden states along a direction
    lm_eval.py      a task of EleutherAI's harness

`read` and `entry` are for harness/registry.py, which turns a word of the command line into a task.
"""

from tasks.targets.target import entry, read

__all__ = ["entry", "read"]
