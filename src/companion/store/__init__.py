"""Files on disk: where data and results live, atomic writes, checked downloads, provenance.

This room knows nothing of images, models or scores.
"""

from companion.store.downloads import fetch, fetch_zip_member
from companion.store.files import (
    atomic_path,
    cache_dir,
    check_writable,
    data_dir,
    data_directory,
    file_hash,
    write_text,
)
from companion.store.provenance import RESULTS_VERSION, digest, provenance
from companion.store.rows import RowStore

__all__ = [
    "RESULTS_VERSION",
    "RowStore",
    "atomic_path",
    "cache_dir",
    "check_writable",
    "data_dir",
    "data_directory",
    "digest",
    "fetch",
    "fetch_zip_member",
    "file_hash",
    "provenance",
    "write_text",
]
