"""Letters on pictures: where they stand, what happens at the edges, and what no letter does."""

import numpy as np
import pytest

from inference.fit_lettering import Lettering

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def letters():
    return Lettering(13)


def page(letters, text, x=10, y=20, **options):
    image = np.zeros((30, 120, 3), np.uint8)
    return image, letters.write(image, x, y, text, WHITE, **options)


def test_letters_stand_on_the_base_line_one_after_the_other(letters):
    image, end = page(letters, "HHH")
    ink = image.max(axis=2) > 100
    assert end == 10 + 3 * Lettering.advance(13) and Lettering.advance(13) == 8
    rows = np.flatnonzero(ink.any(axis=1))
    assert rows[-1] in (18, 19, 20) and 8 <= rows[-1] - rows[0] + 1 <= 11, "as high as a capital, and not below y"
    step = Lettering.advance(13)
    first, second = image[:, 10 : 10 + step], image[:, 10 + step : 10 + 2 * step]
    assert np.abs(first.astype(int) - second).max() < 40 and first.any()


def test_what_is_left_of_a_line_is_kept(letters):
    whole, _ = page(letters, "abc", x=0)
    cut, _ = page(letters, "abc", x=-8)
    np.testing.assert_array_equal(cut[:, :16], whole[:, 8:24])
    for x, y in ((-500, 20), (500, 20), (10, -50), (10, 90)):
        assert not page(letters, "abc", x=x, y=y)[0].any()


def test_unknown_letters_and_none_at_all(letters):
    np.testing.assert_array_equal(page(letters, "狗")[0], page(letters, "?")[0])
    assert page(letters, "")[1] == 10
    for letter in "°±×≤≥–…":
        assert page(letters, letter)[0].any() and not np.array_equal(page(letters, letter)[0], page(letters, "?")[0])


def test_backed_text_darkens_what_is_behind_it(letters):
    image = np.full((30, 120, 3), 200, np.uint8)
    letters.write(image, 10, 20, "  ", WHITE, backed=True)
    assert image[15, 12].tolist() == [100, 100, 100] and image[15, 60].tolist() == [200, 200, 200]
