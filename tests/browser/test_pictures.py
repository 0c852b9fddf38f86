"""Ways for a picture to come in."""

import base64
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.reading import (
    ask,
    canvas,
    choose_scene,
    expected_legend,
    found,
    legend,
    painted,
    scene,
    slide,
    type_classes,
)
from tests.service.fakes import encoded, picture

TRANSFER = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


def transfer(page: Page, data: bytes, name: str, kind: str = "image/png") -> object:
    """A DataTransfer with a file."""
    return page.evaluate_handle(TRANSFER, [base64.b64encode(data).decode(), name, kind])


def test_own_picture_by_file_dialog(visit: OpenPage, url: str, tmp_path: Path) -> None:
    own = encoded(picture(90, 160))
    (tmp_path / "my holiday.png").write_bytes(own)
    page = visit()
    with page.expect_file_chooser() as dialog:
        page.get_by_role("button", name="Choose an image").click()
    dialog.value.set_files(tmp_path / "my holiday.png")
    expect(page.locator("#class-input")).to_be_focused()
    type_classes(page, "sky", "hay")
    found(page, 2)
    answer = ask(url, own, {"classes": ["sky", "hay"]})
    assert legend(page) == expected_legend(answer)
    slide(page, "opacity", 100)
    assert np.array_equal(canvas(page, "mask"), painted(answer))
    assert np.abs(canvas(page, "photo")[:, :, :3].astype(int) - picture(90, 160)).max() <= 1
    with page.expect_file_chooser() as dialog:
        page.get_by_role("button", name="Other image").click()
    dialog.value.set_files({"name": "b.png", "mimeType": "image/png", "buffer": encoded(picture(40, 60))})
    expect(page.locator("#code-note")).to_contain_text("b.png")
    found(page, 2)
    assert canvas(page, "mask").shape == (40, 60, 4)


def test_pasted_and_dropped_pictures(visit: OpenPage) -> None:
    page = visit()
    type_classes(page, "water")
    page.evaluate(
        "(data) => dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))",
        transfer(page, scene("harbour"), "image.png", "image/jpeg"),
    )
    found(page, 1)
    expect(page.locator("#code-note")).to_contain_text("image.png")
    dropped = transfer(page, scene("room"), "room.jpg", "image/jpeg")
    page.dispatch_event("#stage", "dragenter", {"dataTransfer": dropped})
    expect(page.locator("#drop-hint")).to_be_visible()
    page.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
    expect(page.locator("#drop-hint")).to_be_hidden()
    expect(page.locator("#code-note")).to_contain_text("room.jpg")
    found(page, 1)


def test_dropped_document_is_refused_in_words(visit: OpenPage) -> None:
    page = visit()
    page.dispatch_event(
        "#stage", "drop", {"dataTransfer": transfer(page, b"%PDF", "a.pdf", "application/pdf")}
    )
    expect(page.get_by_role("alert")).to_contain_text("“a.pdf” is no image.")


@pytest.mark.parametrize(
    ("name", "kind"), [("a.txt", "text/plain"), ("a.pdf", "application/pdf"), ("a.png", "image/png")]
)
def test_a_chosen_document_is_refused_at_once(visit: OpenPage, name: str, kind: str) -> None:
    page = visit()
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": b"a house and a tree"})
    expect(page.get_by_role("alert")).to_contain_text(f"“{name}” is no image. JPEG, PNG")
    expect(page.locator("#invitation")).to_be_visible()
    expect(page.get_by_role("status").first).to_have_text("")


def test_a_file_too_large_for_the_service_is_refused_by_its_header(visit: OpenPage) -> None:
    """144 million pixels would stop the page for seconds; here decoding a large file would be seen."""
    page = visit()
    choose_scene(page)
    page.evaluate(
        "() => { window.decoded = 0; const decode = createImageBitmap;"
        "window.createImageBitmap = (...given) => { window.decoded += 1; return decode(...given); } }"
    )
    small = encoded(picture(8, 8))
    header = struct.pack(">II", 12_000, 12_000) + small[24:29]
    large = small[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + small[33:]
    page.set_input_files("#file", {"name": "big.png", "mimeType": "image/png", "buffer": large})
    expect(page.get_by_role("alert")).to_contain_text(
        "“big.png” has 12000 × 12000 pixels, 144 million; this service takes 50 million at the most."
    )
    assert page.evaluate("window.decoded") == 0
    expect(page.locator("#mask")).to_have_attribute(
        "aria-label", re.compile("village.jpg and mask")
    )  # it stays
    page.set_input_files("#file", {"name": "small.png", "mimeType": "image/png", "buffer": small})
    expect(page.locator("#mask")).to_have_attribute("aria-label", "Image small.png, no mask yet")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert page.evaluate("window.decoded") == 1


def test_a_large_picture_is_shown_at_screen_size_and_may_be_cut_into_tiles(visit: OpenPage, url: str) -> None:
    page = visit()
    data = encoded(np.tile(picture(75, 100), (1, 30, 1)))
    wide: FilePayload = {"name": "wide.png", "mimeType": "image/png", "buffer": data}
    page.set_input_files("#file", wide)
    expect(page.locator("#mask")).to_have_attribute("aria-label", "Image wide.png, no mask yet")
    assert canvas(page, "photo").shape == (51, 2048, 4)
    # tiles are off, and offered to pictures that are larger than one
    expect(page.locator("#tiled")).not_to_be_checked()
    expect(page.locator("#tiles")).to_contain_text("4 parts one by one")
    slide(page, "opacity", 100)
    document: dict[str, object] = {"classes": ["sky", "hay"], "output_size": {"long_side": 2048}}
    type_classes(page, "sky", "hay")
    found(page, 2)
    whole = painted(ask(url, data, document))
    assert np.array_equal(canvas(page, "mask"), whole)
    with page.expect_response("**/v1/segment"):
        page.check("#tiled")
    found(page, 2)
    tiled = painted(ask(url, data, {**document, "tiling": {"size": 1024, "overlap": 256}}))
    assert not np.array_equal(tiled, whole)
    expect(page.locator("#code-text")).to_contain_text('"tiling":{"size":1024,"overlap":256}')
    assert np.array_equal(canvas(page, "mask"), tiled)
    small: FilePayload = {"name": "b.png", "mimeType": "image/png", "buffer": encoded(picture(40, 60))}
    page.set_input_files("#file", small)
    expect(page.locator("#code-note")).to_contain_text("b.png")
    expect(page.locator("#tiles")).to_be_hidden()
    expect(page.locator("#code-text")).not_to_contain_text("tiling")


def test_text_is_pasted_as_classes(visit: OpenPage) -> None:
    page = visit()
    page.evaluate("navigator.clipboard.writeText('sky, corn  field,\\nhay,sky')")
    page.focus("#class-input")
    page.keyboard.press("Control+V")
    expect(page.locator(".chip-name")).to_have_text(["sky", "corn field", "hay"])
    page.keyboard.type("tree,road,ki")
    expect(page.locator(".chip-name")).to_have_text(["sky", "corn field", "hay", "tree", "road"])
    expect(page.locator("#class-input")).to_have_value("ki")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.press("Backspace")
    expect(page.locator(".chip-name")).to_have_text(["sky", "corn field", "hay", "tree"])


def test_upright_by_exif(visit: OpenPage, url: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    own = encoded(picture(40, 80), "JPEG", exif=exif, quality=95)
    page = visit()
    type_classes(page, "sky", "hay")
    page.set_input_files("#file", {"name": "phone.jpg", "mimeType": "image/jpeg", "buffer": own})
    found(page, 2)
    assert canvas(page, "mask").shape == canvas(page, "photo").shape == (80, 40, 4)
    slide(page, "opacity", 100)
    assert np.array_equal(canvas(page, "mask"), painted(ask(url, own, {"classes": ["sky", "hay"]})))


def test_picture_that_only_the_service_reads(visit: OpenPage) -> None:
    page = visit()
    type_classes(page, "sky", "hay")
    tiff = encoded(picture(60, 90), "TIFF")
    page.set_input_files("#file", {"name": "scan.tif", "mimeType": "image/tiff", "buffer": tiff})
    found(page, 2)
    assert canvas(page, "mask").shape == (60, 90, 4)
    assert not canvas(page, "photo").any()
    expect(page.get_by_role("status").first).to_contain_text("the browser cannot show this image")


def test_large_picture_is_masked_at_screen_size_and_downloaded_whole(visit: OpenPage, tmp_path: Path) -> None:
    page = visit()
    type_classes(page, "sky", "hay")
    large = encoded(picture(150, 2400), "JPEG")
    page.set_input_files("#file", {"name": "wide.jpg", "mimeType": "image/jpeg", "buffer": large})
    found(page, 2)
    assert canvas(page, "mask").shape == (128, 2048, 4)
    with page.expect_download() as coming:
        page.click("#get-png")
    with Image.open(io.BytesIO(Path(coming.value.path()).read_bytes())) as mask:
        assert mask.size == (2400, 150)
