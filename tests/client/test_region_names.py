"""Names on regions: where they lie, and when they are left out."""

import numpy as np
import pytest

from ebseg_client.region_names import MOST, PLATE, THIN, places, write_names

COLORS = np.array([[240, 100, 100], [30, 120, 240]], np.uint8)


def test_a_place_is_in_the_thick_of_each_region() -> None:
    labels = np.zeros((240, 480), np.uint16)
    labels[20:220, 20:220] = 1
    labels[20:220, 260:460] = 1  # apart from the first
    labels[:, 470:473] = 2  # too thin for a name
    found = places(labels)
    assert [place.label for place in found] == [1, 1]
    assert sorted(place.x for place in found) == pytest.approx([0.25, 0.75], abs=0.03)
    assert all(abs(place.y - 0.5) < 0.05 for place in found)


def test_the_place_of_a_bent_region_lies_in_it() -> None:
    labels = np.zeros((200, 200), np.uint16)
    labels[:60] = labels[:, :60] = 1  # its middle is outside of it
    (place,) = places(labels)
    assert labels[int(place.y * 200), int(place.x * 200)] == 1


def test_roomy_regions_come_first_and_small_ones_not_at_all() -> None:
    labels = np.zeros((128, 128), np.uint16)
    labels[2:9, 2:9] = 1
    labels[20:120, 20:120] = 2
    labels[2:7, 60:64] = 1
    assert [place.label for place in places(labels)] == [2, 1]
    many = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((12, 12))).astype(np.uint16)
    assert len(places(many)) == MOST
    assert places(np.zeros((5, 5), np.uint16)) == []
    assert places(np.ones((1, THIN), np.uint16)) == []


def test_a_name_stands_on_its_region() -> None:
    image = np.full((200, 400, 3), 128, np.uint8)
    labels = np.ones((200, 400), np.uint16)
    labels[:, 200:] = 2
    write_names(image, labels, COLORS, ["boat", "quay"])
    changed = (image != 128).any(2)
    rows, _ = np.nonzero(changed)
    assert 80 < rows.min() < rows.max() < 120
    for half, color in ((slice(0, 200), COLORS[0]), (slice(200, 400), COLORS[1])):
        assert changed[:, half].sum() > 200
        assert (image[:, half] == color).all(2).sum() > 20  # the bar
        assert (image[:, half] > 200).all(2).any()  # letters


def test_names_without_room_or_letters_are_left_out() -> None:
    labels = np.ones((200, 400), np.uint16)
    wide = "a name that is much too long for a small image, however it is turned, or written"
    for name in (wide, "\u6811\u6728"):
        image = np.full((200, 400, 3), 128, np.uint8)
        write_names(image, labels, COLORS[:1], [name])
        assert (image == 128).all()
    tiny = np.full((4, 4, 3), 128, np.uint8)
    write_names(tiny, np.ones((4, 4), np.uint16), COLORS[:1], ["boat"])
    assert (tiny == 128).all()


def test_the_plate_is_dark_and_lets_a_little_through() -> None:
    image = np.full((200, 400, 3), 255, np.uint8)
    write_names(image, np.ones((200, 400), np.uint16), COLORS[:1], ["boat"])
    darkest = image.reshape(-1, 3).min(0)
    assert (darkest > PLATE).all()
    assert (darkest < 90).all()
