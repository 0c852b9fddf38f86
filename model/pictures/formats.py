"""What a file is by its first bytes: formats that are taken, each with its opener, and names of others."""

import string
from collections.abc import Callable
from io import BytesIO

import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from model.errors import PictureFormatError
from model.pictures.heif import is_avif
from model.pictures.jpeg_xl import SIGNATURES as JPEG_XL
from model.pictures.jpeg_xl import JpegXlImageFile

FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP and GIF"  # and JPEG XL, which takes another package
Opener = Callable[[BytesIO], ImageFile.ImageFile]

# The plug-ins are called by name: `Image.open` would try more formats than these, and warns of large
# pictures before we have a chance to refuse them.
_SIGNATURES: tuple[tuple[bytes, Opener], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    *((signature, JpegXlImageFile) for signature in JPEG_XL),
)
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop image"),
    (b"\0\0\1\0", "an icon"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"FUJIFILM", "a raw image of a camera"),
    (b"IIRO", "a raw image of a camera"),
    (b"IIU\0", "a raw image of a camera"),
    (b"DDS ", "a DirectDraw texture"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SIMPLE  =", "a FITS file"),
    (b"%!PS", "a PostScript document"),
    (b"qoif", "a QOI image"),
    *((b"P%d" % kind + space, "a PNM image") for kind in range(1, 8) for space in (b"\n", b" ", b"\r")),
)
_TEXT = frozenset(string.printable.encode()) | frozenset(range(128, 256))
# how data URLs begin, and base64 of JPEG, PNG, GIF and RIFF, in small letters
_IN_BASE64 = (b"data:", b"/9j/", b"ivborw0kggo", b"r0lgod", b"uklgr")
_SHOWN = 8  # bytes of an unknown beginning


def opener_of(data: bytes) -> Opener:
    """The plug-in of Pillow's, or ours, that opens a picture.

    Raises:
        PictureFormatError: of none of `FORMATS`; says what it is instead.
    """
    for signature, opener in _SIGNATURES:
        if data.startswith(signature):
            return opener
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    avif = is_avif(data)
    if avif is not None:
        return AvifImagePlugin.AvifImageFile if avif else pillow_heif.HeifImageFile
    raise PictureFormatError(f"this is {_seen(data)}; images are taken as {FORMATS}")


def looks_like_picture(start: bytes) -> bool:
    """Whether a file is a picture by its first bytes, some hundred, of whatever format."""
    try:
        opener_of(start)
    except PictureFormatError:
        return any(start.startswith(signature) for signature, name in _OTHERS if "image" in name)
    return True


def _seen(data: bytes) -> str:
    """What a file is, as far as its beginning tells."""
    for signature, name in _OTHERS:
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "an MP4 or QuickTime video" if data[8:12] != b"crx " else "a raw image of a camera"
    if data[:4] == b"RIFF":
        return "a RIFF file, such as a video or sound"
    if data[128:132] == b"DICM":
        return "a DICOM file"
    start = data[:400].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"http://", b"https://")):
        return "a URL"
    if start.startswith(_IN_BASE64):
        return "an image in base64, and its bytes are wanted"
    if all(byte in _TEXT for byte in data[:400]):
        return "text"
    return f"a file of an unknown format, which begins with the bytes {data[:_SHOWN].hex(' ')}"
