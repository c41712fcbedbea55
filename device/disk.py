"""A disk that takes nothing: full, read-only since its file system failed, or failing. It may take something later.

That is nobody's mistake, and no reason for a device not to answer: what would be written waits or is left out. A path
that is wrong is a mistake, and ends the agent with words that say so.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

PROBE_BYTES = 4096
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def is_disk_s(error: OSError) -> bool:
    """Whether an error is the disk's doing, and not the path's."""
    return error.errno in _PASSING


def refuses(path: Path) -> bool:
    """Whether the disk takes nothing where a path is, or would be; a file that is gone at once finds that out."""
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".headwater-", buffering=0) as file:
            return file.write(bytes(PROBE_BYTES)) < PROBE_BYTES
    except OSError as error:
        return is_disk_s(error)
