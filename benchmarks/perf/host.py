"""What figures were taken on, and when: for the scripts beside this one."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

import torch


def taken(command: str) -> dict[str, Any]:
    """When and how figures were taken."""
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "command": command}


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
