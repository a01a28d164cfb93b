"""The console of an installed chart: its files are in the image, and its whole life works on a real cluster."""

from tests.product.test_console import *  # noqa: F403
