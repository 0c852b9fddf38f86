"""What the names of picture files end in."""

TAKEN: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".webp",
    ".avif",
    ".heic",
    ".heif",
)
TAKEN += (".hif", ".jxl", ".tif", ".tiff", ".bmp", ".dib", ".gif")
REFUSED: tuple[str, ...] = (".jp2", ".j2k", ".psd", ".exr", ".hdr", ".dds", ".tga")
REFUSED += (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")  # of cameras
PICTURES = TAKEN + REFUSED  # reading those of the latter says what they are
