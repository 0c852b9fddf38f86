"""The program that decodes a JPEG XL picture: its file comes on standard input, and `jpeg_xl.py` starts it.

Its arguments are the folder of pyjpegxl, and the bytes and the processor's seconds that it may take.
It writes a line of JSON, `{"width", "height", "channels", "profile"}`, `{"error"}` or `{"missing"}`,
and then the pixels.
"""

import json
import resource
import sys


def main(folder: str, most: int, seconds: int) -> None:
    """Decodes the picture within the bounds; a decoder that goes beyond ends with an error, or at once."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    sys.path.append(folder)
    try:
        import pyjpegxl

        pyjpegxl.set_num_threads(1)
        about, pixels = pyjpegxl.decode(sys.stdin.buffer.read(), dtype="uint8")
        channels = about.num_color_channels + about.has_alpha
        head = {
            "width": about.width,
            "height": about.height,
            "channels": channels,
            "profile": (about.icc or b"").hex(),
        }
        if len(pixels) != about.width * about.height * channels:
            head = {"error": "its channels are not those of an image"}
    except ImportError as error:
        head, pixels = {"missing": str(error)[:100]}, b""
    except Exception as error:  # whatever a decoder raises, it is the file's fault, or memory ran out
        head, pixels = {"error": str(error)[:100]}, b""
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    sys.stdout.buffer.write(pixels)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
