import pytest

from tests.benchmarks.hog_color_accuracy import PHOTOGRAPHS, ZIPS, measure


@pytest.mark.photographs
@pytest.mark.skipif(
    not all((PHOTOGRAPHS / name).is_file() for name in ZIPS), reason=f"the sample photographs are not in {PHOTOGRAPHS}"
)
def test_hog_color_tells_cars_from_trucks_in_91_of_100_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = measure()

    with capsys.disabled():
        print(f"\naccuracy of HogColor on the photographs, five-fold, four times: {100 * accuracy:.2f} %")
    assert accuracy >= 0.91
