"""Pictures as arrays of +1 (light) and -1 (dark): where they come from, how they are drawn, and how one is read."""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import HarnessError
from harness.machine.files import MOST_CONTENT, check_pixels, check_plain, read_bytes

if TYPE_CHECKING:
    import numpy as np

PICTURE_67 = ("++++---", "---+++-", "-+++++-", "---+++-", "-+-+++-", "---++++")
"""Rows top to bottom (section 4.2): hidden dimensions; columns: token ids. The digits are the minus signs."""

QUIET_ZONE = 4
"""Modules of white around a QR code, as its standard (ISO/IEC 18004) asks for."""

PIXELS = 10
"""Pixels of a drawn module, in both directions."""


def from_rows(rows: tuple[str, ...]) -> np.ndarray:
    """Rows of "+" and "-" -> (rows, columns) int8 of +1 and -1."""
    import numpy as np

    return np.array([[1 if sign == "+" else -1 for sign in row] for row in rows], dtype=np.int8)


def qr_code(text: str, error: str) -> np.ndarray:
    """The version-1 QR code of `text` at error correction level `error` (L, M, Q, H), (21, 21) int8, dark modules -1.

    Raises HarnessError for an empty text, one too long for version 1, and an unknown level.
    """
    import numpy as np
    import segno

    if error.upper() not in ("L", "M", "Q", "H"):
        raise HarnessError(f"task.options.error_correction must be L, M, Q or H, not {error!r}.")
    if not text:
        raise HarnessError("task.options.text is empty; give the text that the QR code should hold.")
    # Without the encoding, a text outside Latin-1 may be stored in Shift-JIS, which readers hand back as raw bytes.
    encoding = None if text.isascii() else "utf-8"
    try:
        code = segno.make(text, error=error, version=1, micro=False, boost_error=False, encoding=encoding)
    except segno.DataOverflowError as overflow:
        raise HarnessError(
            f"The text {text!r} is too long for a version-1 QR code at error correction {error.upper()}; shorten it, "
            "or lower task.options.error_correction (L holds 17 bytes, H 7)."
        ) from overflow
    dark = np.array([list(row) for row in code.matrix], dtype=np.int8)
    return 1 - 2 * dark


def from_file(path: Path) -> np.ndarray:
    """A picture from a .npy of +1 and -1, or from an image, one pixel an entry, light (grey value >= 128) +1 and dark
    -1. (rows, columns) int8. Raises HarnessError if the file is missing, unreadable, not two-dimensional, or holds
    other values."""
    import numpy as np

    if not os.path.exists(path):  # Path.exists raises for names that no file can have
        raise HarnessError(
            f"The pattern {str(path)[:200]} is not a file; set task.options.pattern to a .npy or image file."
        )
    if path.suffix != ".npy":
        import cv2

        content = read_bytes(path)
        check_pixels(*_size_of(content), f"The pattern {path}")
        grey = cv2.imdecode(np.frombuffer(content or b"\0", dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise HarnessError(f"The pattern {path} is not an image that OpenCV reads; save it as PNG.")
        return np.where(grey >= 128, 1, -1).astype(np.int8)
    try:
        check_plain(path, MOST_CONTENT)
        values = np.load(path, allow_pickle=False, mmap_mode="r")  # a header may claim more than the file has
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise HarnessError(f"The pattern {path} is not a plain .npy array; save it with numpy.save.") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or not values.size or not np.isin(values, (-1, 1)).all():
        raise HarnessError(f"The pattern {path} must be a two-dimensional array of +1 and -1.")
    return values.astype(np.int8)


def _size_of(content: bytes) -> tuple[int, int]:
    """(width, height) as an image's header says, whatever its format; (0, 0) where nobody knows."""
    import io

    from PIL import Image

    if content.startswith(b"\x89PNG"):
        return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except Image.DecompressionBombError:
        return 2**31, 2**31
    except Exception:  # of dozens of formats; OpenCV says what it cannot read
        return 0, 0


# ------------------------------------------------------------------------------------------------------------- pictures


def grey_image(signs: np.ndarray, *, pixels: int = PIXELS, border: int = 0) -> np.ndarray:
    """(rows, columns) of +1, 0, -1 -> uint8 grey image: white, mid-grey, black, `pixels` a module and `border` white
    modules around."""
    import numpy as np

    grey = np.select([signs > 0, signs < 0], [255, 0], default=128).astype(np.uint8)
    return _enlarged(np.pad(grey, border, constant_values=255), pixels)


def diverging_image(values: np.ndarray, *, pixels: int = PIXELS) -> np.ndarray:
    """(rows, columns) floats -> uint8 (H, W, 3) in OpenCV's BGR order: blue at minus the largest magnitude, white at 0,
    red at plus it."""
    import numpy as np

    peak = float(np.abs(values).max()) or 1.0
    share = np.clip(values / peak, -1, 1)[..., None]
    white, red, blue = (np.array(colour) for colour in ((255, 255, 255), (43, 24, 178), (172, 102, 33)))
    colours = white + np.where(share > 0, share * (red - white), -share * (blue - white))
    return _enlarged(np.rint(colours).astype(np.uint8), pixels)


def png(image: np.ndarray) -> bytes:
    """A uint8 image, grey or BGR, as the bytes of a PNG file."""
    import cv2

    done, encoded = cv2.imencode(".png", image)
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}")
    return encoded.tobytes()


def read_qr(image: np.ndarray, *, margin: int | None = None) -> str:
    """What OpenCV's QR reader finds in a grey image; "" if it finds nothing or bytes that are no UTF-8 text.

    With `margin`, the pixels around the code, the reader is told where the code's corners are and need not find it:
    wrong modules in the three finder patterns then hinder it no more than others do.
    """
    import cv2
    import numpy as np

    reader = cv2.QRCodeDetector()
    try:
        if margin is None:
            return reader.detectAndDecode(image)[0]
        right, bottom = image.shape[1] - margin, image.shape[0] - margin
        corners = [[margin, margin], [right, margin], [right, bottom], [margin, bottom]]
        return reader.decode(image, np.array([corners], dtype=np.float32))[0]
    except UnicodeDecodeError:  # the binding's, for a damaged code whose error correction lands on another byte string
        return ""


def _enlarged(image: np.ndarray, pixels: int) -> np.ndarray:
    return image.repeat(pixels, axis=0).repeat(pixels, axis=1)
