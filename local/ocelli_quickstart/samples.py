"""The tutorial's files, which are part of scikit-learn: handwritten digits, and two photographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ocelli_quickstart.digits import DIGIT_NAMES, Digits

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""A palace and a dahlia, CC BY; scikit-learn's `datasets/images/README.txt` names the authors."""


def write_samples(folder: Path) -> None:
    """Write the tutorial's files, unless they exist.

    `zero.zip`, `one.zip`, `two.zip`, `more-ones.zip`: examples; `two/`: the images of `two.zip` as a folder;
    `other-digits.zip`: three to nine, as negative examples; `test-zero.png` … `test-two.png`, `test-seven.png` and `tests.zip`:
    other images; `zero-test.zip` and `one-test.zip`: a test set; `china.jpg` and `flower.jpg`: photographs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        if not (folder / name).exists():
            temporary = folder / f"{name}.tmp"
            temporary.write_bytes(read_photograph(name))
            temporary.replace(folder / name)
    last = folder / "one-test.zip"
    if last.exists():
        return
    digits = Digits()
    for digit in (0, 1, 2):
        digits.write_zip(folder / f"{DIGIT_NAMES[digit]}.zip", [digit], range(40))
    digits.write_zip(folder / "more-ones.zip", [1], range(40, 80))
    digits.write_zip(folder / "other-digits.zip", range(3, 10), range(10))
    (folder / "two").mkdir(exist_ok=True)
    for index in range(40):
        (folder / "two" / f"{index:03}.png").write_bytes(digits.png(2, index))
    for digit in (0, 1, 2, 7):
        (folder / f"test-{DIGIT_NAMES[digit]}.png").write_bytes(digits.png(digit, 150))
    digits.write_zip(folder / "tests.zip", (0, 1, 2), range(150, 155))
    digits.write_zip(folder / "zero-test.zip", [0], range(100, 120))
    digits.write_zip(last, [1], range(100, 120))


def read_photograph(name: str) -> bytes:
    """The bytes of a JPEG file of 640x427 pixels."""
    # Finding the package without importing it saves a second.
    specification = importlib.util.find_spec("sklearn")
    if specification is None or not specification.submodule_search_locations:
        raise ModuleNotFoundError("scikit-learn, which contains the tutorial's photographs, is not installed", name="sklearn")
    return (Path(specification.submodule_search_locations[0]) / "datasets" / "images" / name).read_bytes()
