"""How long a thread of OpenMP spins before it sleeps while it waits; set before numpy or torch is imported."""

from __future__ import annotations

import os

from toolkit.tuning import tuned

CHOSEN_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables with which a user says how threads of OpenMP wait."""


def spin_briefly() -> None:
    """Have threads of OpenMP that wait sleep before long, unless the environment says how they wait.

    Spinning for as long as libgomp does by itself takes a processor away from whoever is waited for, where other
    programs run: queries take two times as long, or more.
    """
    if not any(name in os.environ for name in CHOSEN_BY):
        os.environ["GOMP_SPINCOUNT"] = str(tuned().processes.spin_loops)
