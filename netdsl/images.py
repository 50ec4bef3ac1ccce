"""Pictures in and out: files to network inputs, network outputs to files.

A picture is read as 8-bit grey or RGB, upright as its camera meant it. `prepare` then does what the network's input
line says (`Preprocess`): resize, centre crop, value range, channel order, mean and standard deviation.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from netdsl.errors import InputError
from netdsl.graph.ir import InputSpec, Preprocess

Floats = NDArray[np.float32]

MAX_PIXELS = 64 * 2**20  # chosen: 64 megapixels, 192 MiB in RGB; guards against decompression bombs
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that starts another program (EPS)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def read_image(path: str | Path) -> Image.Image:
    """Read a picture file as an 8-bit "L" (grey) or "RGB" picture.

    The first frame is taken, the EXIF orientation applied, a palette expanded, 16-bit values scaled to 8 bit, and a
    transparent picture laid on white.

    Errors: InputError ("no-image", "bad-image", "image-too-large").
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _opened(path) as image:
                _check_size(image, path)
                image.load()
                return _to_8bit(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError("there is no such file", code="no-image", path=str(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise InputError(
            f"this is not a picture that netdsl can read ({known})", code="bad-image", path=str(path)
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError) as e:  # what decoders raise
        reason = getattr(e, "strerror", None) or e
        raise InputError(f"the picture cannot be read: {reason}", code="bad-image", path=str(path)) from None


def _opened(path: Path) -> Image.Image:
    """Tried first as what its suffix says: for a list of formats Pillow loads every decoder it knows."""
    likely = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower())
    if likely:
        with suppress(UnidentifiedImageError):
            return Image.open(path, formats=(likely,))
    return Image.open(path, formats=FORMATS)


def _check_size(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f"{image.width}x{image.height} pixels, ")


def _too_large(path: Path, size: str = "") -> InputError:
    return InputError(f"the picture has {size}more than {MAX_PIXELS} pixels", code="image-too-large", path=str(path))


def _to_8bit(image: Image.Image) -> Image.Image:
    """The picture in mode L or RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey; float TIFF holds 0..1
        values = np.asarray(image, np.float64)
        return Image.fromarray(_quantize(values if image.mode == "F" else values / 65535))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("L" if image.mode in ("LA", "La") else "RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _quantize(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..1 to 0..255, rounded; what lies outside is clipped, NaN is black."""
    levels: NDArray[np.uint8] = (np.nan_to_num(np.clip(values, 0, 1)) * 255 + 0.5).astype(np.uint8)
    return levels


def from_array(pixels: NDArray[Any]) -> Image.Image:
    """A picture from pixels [H, W], [H, W, 1] or [H, W, 3], uint8 (0..255) or float (0..1).

    Errors: InputError ("bad-image") for other shapes.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        shape = "x".join(map(str, pixels.shape))
        raise InputError(f"expected pixels [H, W] or [H, W, 3], found an array of shape {shape}", code="bad-image")
    if pixels.dtype != np.uint8:
        pixels = _quantize(pixels)
    return Image.fromarray(np.ascontiguousarray(pixels))


def prepare(image: Image.Image, spec: InputSpec) -> Floats:
    """What the network's input line makes of a picture.

    Steps: grey or RGB by the input's channels; resize (a whole number: the shorter side; a pair: exactly); centre
    crop; 0..255 to `range`; `order`; (value - mean) / std.
    Where the line gives neither resize nor crop, the picture is stretched to the input's size. A resized picture is
    cropped to the input's size; a picture smaller than the crop is first enlarged until it covers it.
    Free sides (`?`) follow the picture.

    Returns float32 [1, C, H, W].
    Errors: InputError ("not-an-image-input") when the network's input cannot be a picture.
    """
    shape, do = spec.type.shape, spec.preprocess
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(
            f"input {spec.name} is {spec.type}; a picture can only fill 1 (grey) or 3 (colour) channels",
            code="not-an-image-input", hint="give a .npy or .npz file instead",
        )  # fmt: skip
    image = _fit(image.convert("L" if shape[0] == 1 else "RGB"), spec)
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, shape[0])
    low, high = do.range
    values: NDArray[Any] = low + (high - low) * (pixels / np.float32(255))
    if do.order == "bgr":
        values = values[:, :, ::-1]
    if do.mean:
        values = values - np.asarray(do.mean, np.float32)
    if do.std:
        values = values / np.asarray(do.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)


def _fit(image: Image.Image, spec: InputSpec) -> Image.Image:
    """The picture at the size that the input takes."""
    do, fixed = spec.preprocess, not any(spec.free)
    how = INTERPOLATIONS[do.interpolation]
    size = spec.type.height, spec.type.width
    if do.resize is None and do.crop is None:
        return _resize(image, size, how) if fixed else image
    if isinstance(do.resize, int):
        image = _resize(image, _scaled(image, do.resize), how)
    elif do.resize is not None:
        image = _resize(image, do.resize, how)
    crop = do.crop or (size if fixed else None)
    if crop is None:
        return image
    if image.height < crop[0] or image.width < crop[1]:
        factor = max(crop[0] / image.height, crop[1] / image.width)
        covering = max(crop[0], round(image.height * factor)), max(crop[1], round(image.width * factor))
        image = _resize(image, covering, how)
    top, left = round((image.height - crop[0]) / 2), round((image.width - crop[1]) / 2)
    return image.crop((left, top, left + crop[1], top + crop[0]))


def _scaled(image: Image.Image, shorter: int) -> tuple[int, int]:
    """(height, width) at which the shorter side has `shorter` pixels; the longer one is rounded down, as the
    published accuracies of the ImageNet networks assume."""
    if image.width <= image.height:
        return max(1, int(shorter * image.height / image.width)), shorter
    return shorter, max(1, int(shorter * image.width / image.height))


def _resize(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"a picture of {image.width}x{image.height} would be resized to {size[1]}x{size[0]} pixels",
            code="image-too-large",
        )
    return image if (image.height, image.width) == size else image.resize((size[1], size[0]), how)


def load_image(path: str | Path, spec: InputSpec) -> Floats:
    """Read a picture file as the network's input: float32 [1, C, H, W]. Errors: InputError."""
    return prepare(read_image(path), spec)


def to_pixels(values: NDArray[Any], preprocess: Preprocess | None = None) -> NDArray[np.uint8]:
    """Turn a network's output [C, H, W] or [1, C, H, W] (C = 1 or 3) into pixels, undoing `preprocess`.

    Values outside the range are clipped. Returns uint8 [H, W] or [H, W, 3], RGB.
    Errors: InputError ("not-an-image-output").
    """
    do = preprocess or Preprocess()
    values = np.asarray(values, np.float32)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.size == 0:
        shape = "x".join(map(str, values.shape))
        raise InputError(f"an output of shape {shape} is not a picture", code="not-an-image-output",
                         hint="write it to a .npy or .npz file instead")  # fmt: skip
    pixels = values.transpose(1, 2, 0)
    for constants, undo in ((do.std, np.multiply), (do.mean, np.add)):
        if len(constants) in (1, pixels.shape[2]):
            pixels = undo(pixels, np.asarray(constants, np.float32))
    if do.order == "bgr":
        pixels = pixels[:, :, ::-1]
    low, high = do.range
    pixels = _quantize((pixels - low) / (high - low))
    return pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)


def write_image(path: str | Path, values: NDArray[Any], preprocess: Preprocess | None = None) -> None:
    """Write a network's output [C, H, W] or [1, C, H, W] as a picture file; the suffix says which format.

    Errors: InputError ("not-an-image-output", "bad-suffix", "cannot-write").
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        known = " ".join(SUFFIXES)
        raise InputError(f"cannot tell a picture format from the suffix {path.suffix!r}", code="bad-suffix",
                         path=str(path), hint=f"use one of {known}")  # fmt: skip
    image = Image.fromarray(to_pixels(values, preprocess))
    try:
        image.save(path)
    except (OSError, ValueError) as e:
        raise InputError(f"the picture cannot be written: {e}", code="cannot-write", path=str(path)) from None
