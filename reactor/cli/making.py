"""``reactor init``."""

from __future__ import annotations

import shutil
from pathlib import Path

from reactor.errors import ReactorError

__all__ = ["init"]

TEMPLATE = Path(__file__).parent / "template"
#: What the template calls so, since the name itself would have an effect where the template lies.
_HIDDEN = {"gitignore": ".gitignore"}


def init(folder: Path) -> None:
    """Make a small app in ``folder``. Nothing that is there is touched.

    Raises:
        ReactorError: a file of the app exists, or the folder cannot be written.
    """
    files = {
        folder / source.parent.relative_to(TEMPLATE) / _HIDDEN.get(source.name, source.name): source
        for source in sorted(TEMPLATE.rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    }
    for file in files:
        if file.exists() or file.is_symlink():
            raise ReactorError(f"{file} exists, and is not written over. Name a folder without an app.", code="FileExists")
    try:
        for file, source in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, file)
    except OSError as error:
        raise ReactorError(f"{error.filename}: cannot be written ({error.strerror}).", code="FolderNotWritable") from None
    print(f"Made {folder}/ with a small app. Next:\n  cd {folder} && reactor dev")
