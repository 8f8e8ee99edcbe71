"""What people read and what CI decides on: tables, statistics, figures, one HTML page, comparison of two result sets.

Everything here reads stored results (harness/store) and runs nothing; no model library is imported.

    summary.py   cells -> one row a reward and one block a task, the plain data that every view below renders
    tables.py    the standard table as Markdown and for the terminal
    stats.py     pure functions of named arrays: intervals, paired differences
    figures.py   the paper's figures and the learning curves
    site.py      the self-contained HTML page, its Markdown twin, CSV and Parquet
    diff.py      BASE against NEW: improved, same, worse, missing
"""

from __future__ import annotations
