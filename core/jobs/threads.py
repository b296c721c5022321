"""How this process shares the processor with others."""

from __future__ import annotations

import os


def yield_while_waiting() -> None:
    """Makes idle threads sleep instead of spinning; to be called before torch or scikit-learn is imported.

    OpenMP's threads spin while they wait for each other. Beside a busy QGIS on two cores a spinning thread keeps the
    core from the one that it waits for: an epoch of three seconds took over a minute. Sleeping costs some percent on an
    idle machine. A user's own setting is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
