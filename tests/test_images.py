"""Pictures: every mode and orientation read the same way, preprocessing step by step, hostile files refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from netdsl import images
from netdsl.errors import InputError
from netdsl.graph.ir import InputSpec, Preprocess
from netdsl.tensor import TensorType


def spec(shape, free=(False, False), **preprocess):
    return InputSpec("image", 0, TensorType(shape), Preprocess(**preprocess), free)


def ramp(height, width, channels=3):
    values = np.arange(height * width * channels).reshape(height, width, channels)
    return (values * 255 // values.max()).astype(np.uint8)


@pytest.fixture
def photo():
    return Image.fromarray(ramp(40, 60))


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("RGB", "png", "RGB"), ("L", "png", "L"), ("RGBA", "png", "RGB"), ("LA", "png", "L"), ("P", "gif", "RGB"),
        ("1", "png", "L"), ("CMYK", "jpg", "RGB"), ("YCbCr", "jpg", "RGB"), ("RGB", "webp", "RGB"),
        ("RGB", "tif", "RGB"),
    ],
)  # fmt: skip
def test_every_mode_becomes_grey_or_rgb(tmp_path, photo, mode, suffix, expected):
    path = tmp_path / f"p.{suffix}"
    photo.convert(mode).save(path)
    read = images.read_image(path)
    assert (read.mode, read.size) == (expected, photo.size)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(path)
    assert np.asarray(images.read_image(path)).tolist() == [[0, 128, 255]]


def test_float_tiff_is_zero_to_one(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[0.0, 0.5, 2.0]], np.float32)).save(path)
    assert np.asarray(images.read_image(path)).tolist() == [[0, 128, 255]]


def test_transparency_shows_white(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(path)
    assert (np.asarray(images.read_image(path)) == 255).all()


def test_camera_orientation_is_undone(tmp_path, photo):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    photo.save(path, exif=exif)
    assert (np.asarray(images.read_image(path)) == np.rot90(np.asarray(photo), -1)).all()


def test_range_order_mean_and_std():
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    x = images.prepare(
        images.from_array(pixels),
        spec((3, 1, 1), range=(0.0, 10.0), order="bgr", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0)),
    )
    assert x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_allclose(x[0, :, 0, 0], [(2 - 1) / 2, (0 - 2) / 4, (10 - 3) / 8])


def test_shorter_side_then_centre_crop(photo):
    x = images.prepare(photo, spec((3, 16, 16), resize=20, crop=(16, 16)))
    wanted = photo.resize((30, 20), Image.Resampling.BILINEAR).crop((7, 2, 23, 18))
    np.testing.assert_array_equal(x[0].transpose(1, 2, 0), np.asarray(wanted, np.float32) / 255)


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (3, 5), (16, 16), (17, 16), (1, 500)])
@pytest.mark.parametrize("options", [{}, {"resize": 16}, {"resize": (16, 16)}, {"crop": (16, 16)}, {"resize": 20}])
def test_a_fixed_input_is_always_filled(size, options):
    assert images.prepare(images.from_array(ramp(*size)), spec((1, 16, 16), **options)).shape == (1, 1, 16, 16)


def test_free_sides_follow_the_picture(photo):
    assert images.prepare(photo, spec((3, 256, 256), free=(True, True))).shape == (1, 3, 40, 60)
    assert images.prepare(photo, spec((3, 256, 256), free=(True, True), resize=20)).shape == (1, 3, 20, 30)


def test_no_resize_is_exact(photo):
    x = images.prepare(photo, spec((3, 40, 60)))
    np.testing.assert_array_equal(x[0], ramp(40, 60).transpose(2, 0, 1).astype(np.float32) / 255)


def test_an_input_that_is_no_picture():
    with pytest.raises(InputError) as e:
        images.prepare(images.from_array(ramp(4, 4)), spec((100, 1, 1)))
    assert e.value.code == "not-an-image-input" and "100x1x1" in str(e.value)


@pytest.mark.parametrize(
    "options", [{}, {"order": "bgr", "mean": (0.2, 0.3, 0.4), "std": (0.5,), "range": (-1.0, 1.0)}]
)
def test_an_output_becomes_the_picture_again(tmp_path, photo, options):
    s = spec((3, 40, 60), **options)
    images.write_image(tmp_path / "out.png", images.prepare(photo, s), s.preprocess)
    assert (np.asarray(images.read_image(tmp_path / "out.png")) == np.asarray(photo)).all()


def test_values_out_of_range_are_clipped():
    pixels = images.to_pixels(np.array([[[-1.0, 0.5, 7.0, np.nan, np.inf]]]))
    assert pixels.tolist() == [[0, 128, 255, 0, 255]]


@pytest.mark.parametrize(
    ("name", "shape", "code"),
    [("a.png", (10,), "not-an-image-output"), ("a.png", (2, 4, 4), "not-an-image-output"),
     ("a.png", (3, 0, 4), "not-an-image-output"), ("a.xyz", (3, 4, 4), "bad-suffix"),
     ("no/such/folder.png", (3, 4, 4), "cannot-write")],
)  # fmt: skip
def test_what_cannot_be_written(tmp_path, name, shape, code):
    with pytest.raises(InputError) as e:
        images.write_image(tmp_path / name, np.zeros(shape, np.float32))
    assert e.value.code == code


def test_pixels_from_arrays():
    assert images.from_array(np.zeros((4, 5, 1), np.uint8)).mode == "L"
    assert np.asarray(images.from_array(np.full((2, 2, 3), 0.5))).max() == 128
    with pytest.raises(InputError):
        images.from_array(np.zeros((4, 5, 7)))


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def hostile_files(photo, folder):
    photo.save(folder / "whole.jpg")
    photo.save(folder / "whole.png")
    return {
        "empty": b"",
        "text": b"netdsl 1\n",
        "half a jpeg": (folder / "whole.jpg").read_bytes()[:300],
        "half a png": (folder / "whole.png").read_bytes()[:200],
        "a header alone": (folder / "whole.png").read_bytes()[:33],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "wide bomb": png_claiming(9000, 9000),
        "huge bomb": png_claiming(60000, 60000),
        "absurd bomb": png_claiming(2**31 - 1, 2**31 - 1),
        "no data": png_claiming(10, 10),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "half a jpeg", "half a png", "a header alone", "postscript",
                                  "wide bomb", "huge bomb", "absurd bomb", "no data"])  # fmt: skip
def test_bad_files_are_input_errors(tmp_path, photo, kind):
    path = tmp_path / "bad"
    path.write_bytes(hostile_files(photo, tmp_path)[kind])
    with pytest.raises(InputError) as e:
        images.read_image(path)
    assert e.value.code == ("image-too-large" if "bomb" in kind else "bad-image")
    assert e.value.path == str(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError) as e:
        images.read_image(tmp_path / "none.png")
    assert e.value.code == "no-image"
    with pytest.raises(InputError):
        images.read_image(tmp_path)


def test_a_long_strip_cannot_blow_up():
    with pytest.raises(InputError) as e:
        images.prepare(images.from_array(np.zeros((1, 60000), np.uint8)), spec((1, 224, 224), resize=224))
    assert e.value.code == "image-too-large"
