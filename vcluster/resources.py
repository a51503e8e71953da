"""Where the files that end up on machines lie: inside the wheel, or at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

__all__ = ["templates"]


def templates() -> Path:
    """The folder of ``templates/``.

    Raises:
        FileNotFoundError: this installation has none.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "templates", package.parent / "templates"):
        if (folder / "install.sh.j2").is_file():
            return folder
    raise FileNotFoundError(f"vcluster's templates are in neither {package} nor {package.parent}: install it again")
