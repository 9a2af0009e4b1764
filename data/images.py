"""Reading image files: one at a time, or all small ones at once with a cache beside them."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm

from data.folder import ClassFolders
from rr.errors import InputError, WriteError
from rr.whole_files import written_whole

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")  # by contents: no other decoder is run
GREY_MODES = ("1", "L", "LA", "La")
CACHE_VERSION = 1  # part of the cache's key: raise it when decoding changes
FILES_PER_JOB = 256
AMPLE_BYTES = 100 << 20  # of a decoded image, whatever its file's size
MOST_GROWTH = 200  # a larger one's bytes over its file's: JPEG at its worst quality comes to about 120
MOST_NAMED = 10  # bad files in a message
MOST_HEADERS = 100_000  # files that are looked at for more bad ones, once one is found


class BadImages(InputError):
    """Image files that can't be used.

    Args:
        found: what is wrong with each, by path.
        looked_at: where else bad ones were looked for, in words.

    Attributes:
        found: as given.
    """

    def __init__(self, found: Mapping[str, str], looked_at: str = "") -> None:
        self.found = dict(found)
        one = len(self.found) == 1
        named = ", ".join(f"'{path}' ({what})" for path, what in list(self.found.items())[:MOST_NAMED])
        more = f" and {len(self.found) - MOST_NAMED:,} more" if len(self.found) > MOST_NAMED else ""
        count = "broken image" if one else f"{len(self.found):,} broken images:"
        where = f" ({looked_at})" if looked_at else ""
        super().__init__(f"{count} {named}{more}{where}; replace or delete {'it' if one else 'them'}")


def read_image(path: str, channels: int) -> Image.Image:
    """The decoded image.

    Args:
        path: the file.
        channels: 1 for a grey image, 3 for RGB.

    Raises:
        BadImages: if the file is broken or has more than 8 bits per channel.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise BadImages({path: f"more than 8 bits per channel, mode {image.mode}: convert it to 8 bits"})
        try:
            return image.convert("L" if channels == 1 else "RGB")
        except Exception as error:  # PIL raises OSError, SyntaxError, EOFError, struct.error, ... on broken files
            raise BadImages({path: _reason(error)}) from error


def smaller_side(files: tuple[str, ...]) -> int:
    """Width or height of the first image that can be read, in pixels, whichever is smaller; reads only headers.

    Raises:
        BadImages: if none can be.
    """
    found: dict[str, str] = {}
    for path in files:
        try:
            with _open(path) as image:
                return min(image.size)
        except BadImages as error:
            found |= error.found
    raise BadImages(found)


def count_channels(files: tuple[str, ...]) -> int:
    """1 if all images are grey, else 3; reads headers up to the first coloured one.

    Raises:
        BadImages: with all broken ones, if it comes upon one.
    """
    for path in files:
        try:
            with _open(path) as image:
                if image.mode not in GREY_MODES:
                    return 3
        except BadImages as error:
            raise with_others(error.found, files) from None
    return 1


def with_others(found: Mapping[str, str], files: tuple[str, ...]) -> BadImages:
    """Bad images, and those among other files whose headers can't be read either: a person learns of all at once.

    Args:
        found: what is wrong with those that are known, by path.
        files: the others, of which the first `MOST_HEADERS` are looked at.
    """
    found, looked_at = dict(found), files[:MOST_HEADERS]
    for path in tqdm(looked_at, "looking for broken images", disable=None, leave=False):
        try:
            _open(path).close()
        except BadImages as error:
            found |= error.found
    return BadImages(found, f"the headers of {len(looked_at):,} files were read, the rest shows when it is decoded")


def load_small_images(folders: ClassFolders, image_size: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """All training and all validation images, uint8 [N, C, image_size, image_size] each.

    The first call decodes them and writes a cache file into the data folder, if that is allowed.

    Args:
        folders: the files.
        image_size: side to scale and crop them to, in pixels.
        threads: how many decode.

    Raises:
        BadImages: with all that are broken.
    """
    cache = folders.root / f".resrep_cache_{_fingerprint(folders, image_size)}.npz"
    if (cached := _read_cache(cache, folders, image_size)) is not None:
        return cached
    log.info("decoding %d images of '%s'", len(folders.train.files) + len(folders.val.files), folders.root)
    found: dict[str, str] = {}
    try:
        channels = count_channels(folders.train.files + folders.val.files)
    except BadImages:
        channels = 3  # what is broken is found again, with all that shows only when it is decoded
    train = _decode(folders.train.files, channels, image_size, threads, found)
    val = _decode(folders.val.files, channels, image_size, threads, found)
    if found:
        raise BadImages(dict(sorted(found.items())))
    write_cache(cache, train, val)
    return train, val


def middle(image: Image.Image, size: int, side: int) -> Image.Image:
    """The middle of an image, as it is validated: the shorter side scaled to `side` pixels, then size x size of it."""
    return TF.center_crop(TF.resize(image, [side], antialias=True), [size, size])


def _open(path: str) -> Image.Image:
    try:
        image = Image.open(path, formats=FORMATS)
        most = max(AMPLE_BYTES, MOST_GROWTH * os.path.getsize(path))
    except Exception as error:  # as in read_image
        raise BadImages({path: _reason(error)}) from error
    if image.width * image.height * 3 > most:
        image.close()
        raise BadImages({path: f"{image.width} x {image.height} pixels in a file of {os.path.getsize(path):,} bytes"})
    return image


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _decode(files: tuple[str, ...], channels: int, image_size: int, threads: int, found: dict[str, str]) -> np.ndarray:
    """The images; what is wrong with those that can't be decoded goes into `found`, by path."""
    images = np.empty((len(files), channels, image_size, image_size), dtype=np.uint8)

    def decode_from(first: int) -> None:
        for place in range(first, min(first + FILES_PER_JOB, len(files))):
            try:
                image = read_image(files[place], channels)
            except BadImages as error:
                found.update(error.found)
                continue
            if image.size != (image_size, image_size):
                image = middle(image, image_size, image_size)
            pixels = np.asarray(image)  # [H, W] or [H, W, 3]
            images[place] = pixels if channels == 1 else pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:  # PIL decodes without holding Python's lock
        starts = range(0, len(files), FILES_PER_JOB)
        for _ in tqdm(pool.map(decode_from, starts), "decoding", len(starts), disable=None, leave=False):
            pass
    return images


def _fingerprint(folders: ClassFolders, image_size: int) -> str:
    """A key that changes with any file's name, size or time of change, and with the image size."""
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, image_size]).encode())
    for path in folders.train.files + folders.val.files:
        stat = os.stat(path)
        digest.update(json.dumps([os.path.relpath(path, folders.root), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def _read_cache(cache: Path, folders: ClassFolders, image_size: int) -> tuple[np.ndarray, np.ndarray] | None:
    if not cache.exists():
        return None
    try:
        with np.load(cache, allow_pickle=False) as file:
            train, val = file["train"], file["val"]
    except Exception as error:  # a damaged file raises OSError, ValueError, KeyError, BadZipFile, zlib.error, ...
        log.warning("can't read the cache '%s' (%s); decoding the images again", cache, error)
        return None
    channels = train.shape[1] if train.ndim == 4 else 0
    for images, files in ((train, folders.train.files), (val, folders.val.files)):
        if images.dtype != np.uint8 or images.shape != (len(files), channels, image_size, image_size):
            log.warning("the cache '%s' does not fit its folder; decoding the images again", cache)
            return None
    return train, val


def write_cache(cache: Path, train: np.ndarray, val: np.ndarray) -> None:
    """Write the cache, whole: processes that race each leave a whole file."""
    try:
        with written_whole(cache) as beside, open(beside, "wb") as file:
            np.savez(file, train=train, val=val)
    except WriteError as error:  # a read-only or full disk
        log.info("no cache in '%s' (%s); the images are decoded each time", cache.parent, error)
