"""Suites: cells that answer a set of questions, and the questions themselves, as data (`python -m harness paper`)."""
