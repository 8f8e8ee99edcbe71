"""Arrays of a task's evaluations as rows of a table, and back, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.contracts import HarnessError

if TYPE_CHECKING:
    import numpy
    import pandas

StepArrays = Mapping[int, Mapping[str, "numpy.ndarray"]]
"""Step -> name -> array."""
StepFiles = Mapping[int, Mapping[str, bytes]]
"""Step -> file name -> content."""
COLUMNS = ["step", "name", "dtype", "shape", "data"]
"""`dtype` as numpy writes it ("<f8"), `shape` as "6 7", `data` the entries row by row."""


def arrays_frame(arrays: StepArrays) -> pandas.DataFrame:
    """One array a row, COLUMNS. Raises HarnessError for an array of anything but numbers and truth values."""
    import numpy as np
    import pandas

    rows = []
    for step, named in arrays.items():
        for name, array in named.items():
            values = np.asarray(array)
            if values.dtype.kind not in "biufc":
                raise HarnessError(f"The task wants to store the array {name!r} of {values.dtype}; give it numbers.")
            little = values.astype(values.dtype.newbyteorder("<"), order="C")
            shape = " ".join(map(str, values.shape))
            rows.append([step, name, little.dtype.str, shape, little.tobytes()])
    return pandas.DataFrame(rows, columns=COLUMNS)


def arrays_of(frame: pandas.DataFrame) -> dict[int, dict[str, numpy.ndarray]]:
    """The inverse. Raises ValueError, KeyError or TypeError for a frame that `arrays_frame` did not make."""
    import numpy as np

    found: dict[int, dict[str, numpy.ndarray]] = {}
    for row in frame[COLUMNS].itertuples(index=False):
        shape = tuple(map(int, row.shape.split()))
        if np.dtype(row.dtype).kind not in "biufc" or min(shape, default=0) < 0:
            raise ValueError(f"an array of {row.dtype} and shape {row.shape}")
        found.setdefault(int(row.step), {})[row.name] = np.frombuffer(row.data, dtype=row.dtype).reshape(shape)
    return found
