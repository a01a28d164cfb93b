"""The tutorial by curl, as on one machine."""

from tests.product.test_tutorial import *  # noqa: F403
