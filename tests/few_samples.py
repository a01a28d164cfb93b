"""The tutorial's samples with fewer images, which train in half the time: most tests only need a trained classifier."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

ONE_OF = {
    "zero.zip": 3,
    "one.zip": 3,
    "two.zip": 3,
    "more-ones.zip": 3,
    "other-digits.zip": 5,
    "zero-test.zip": 2,
    "one-test.zip": 2,
}
"""By zip: keep one of this many images."""
AS_THEY_ARE = ("tests.zip", "test-zero.png", "test-one.png")


def write_few_samples(samples: Path, folder: Path) -> None:
    """Write a folder with the same names and fewer images."""
    folder.mkdir(exist_ok=True)
    for name, count in ONE_OF.items():
        with zipfile.ZipFile(samples / name) as whole, zipfile.ZipFile(folder / name, "w") as few:
            for entry in whole.namelist()[::count]:
                few.writestr(entry, whole.read(entry))
    for name in AS_THEY_ARE:
        shutil.copyfile(samples / name, folder / name)
    (folder / "two").mkdir(exist_ok=True)
    for path in sorted((samples / "two").iterdir())[:: ONE_OF["two.zip"]]:
        shutil.copyfile(path, folder / "two" / path.name)
