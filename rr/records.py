"""The CRC-32 of each record of a file that torch.save or torch.export.save wrote: torch compares none, this does."""

from __future__ import annotations

import zipfile
from pathlib import Path

from rr.errors import InputError


def check_records(path: str | Path) -> bool:
    """Check a file of torch.save or torch.export.save for damage.

    Returns:
        Whether it has checksums: not if it is as PyTorch wrote them before 1.6, or by
        `torch.serialization.set_crc32_options(False)`.

    Raises:
        InputError: if a record isn't what was written, or the file says that it holds more than it has.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as records:
            infos = records.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise InputError(f"{path} is compressed, as torch never writes: save it again")
            if sum(info.file_size for info in infos) > path.stat().st_size:
                raise InputError(f"{path} says that it holds more than it has: write or copy it again")
            has_checksums = any(info.CRC for info in infos)
            damaged = records.testzip() if has_checksums else None
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:  # for damage in different places
        raise InputError(f"{path} isn't a whole {path.suffix} file ({error}): write or copy it again") from error
    if damaged is not None:
        raise InputError(f"{path} is damaged, in {damaged!r:.80}: write or copy it again")
    return has_checksums
