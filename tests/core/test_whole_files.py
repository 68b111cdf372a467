"""Files that come from anyone are read without more memory than they bring."""

import tracemalloc
from pathlib import Path

from nerfstudio_prune.core.files import read_file


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """A read of at most so many bytes allocates as many: with a limit of gigabytes, each small file would take them."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert read_file(path, 10**9) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
