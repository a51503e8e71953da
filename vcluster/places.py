"""Where things belong on the user's computer."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

__all__ = ["cache_root", "state_root"]


def state_root() -> Path:
    """Where vcluster keeps its state: ``VCLUSTER_HOME``, or what is usual on this system."""
    return Path(os.environ.get("VCLUSTER_HOME") or user_data_path("vcluster")).expanduser().absolute()


def cache_root() -> Path:
    """Where images lie: ``VCLUSTER_CACHE``, or what is usual on this system."""
    return Path(os.environ.get("VCLUSTER_CACHE") or user_cache_path("vcluster")).expanduser().absolute()
