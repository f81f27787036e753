"""What kind of file a path names, so far as its name tells: for figures, not for decisions."""

from __future__ import annotations

import re

_LIBRARY = re.compile(rb"\.so(\.\d+)*\Z|\.(dylib|dll|a|o)\Z")
_LEGAL = re.compile(rb"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|AUTHORS)", re.IGNORECASE)
_MANUAL = re.compile(rb"\.[1-9](\.gz)?\Z")
_EXECUTABLE_BITS = 0o111

_BY_EXTENSION = {
    "Python": "py pyi pyx pxd",
    "Python bytecode": "pyc pyo",
    "other programs in source": (
        "c h cc hh cpp hpp cxx hxx cu cuh inc f f90 js mjs ts rs go java rb pl sh lua sql s ipynb"
    ),
    "documents": "md rst txt html htm css pdf tex adoc man info",
    "data": "json yaml yml toml xml csv tsv ini cfg conf npy npz h5 parquet dat db proto mo po pem",
    "package metadata": "spdx cdx pc cmake la",
    "archives": "zip tar gz xz zst bz2 whl jar tgz",
    "images and fonts": "png svg jpg jpeg gif ico webp bmp ttf otf woff woff2 afm",
}
_KIND = {
    extension.encode(): kind
    for kind, extensions in _BY_EXTENSION.items()
    for extension in extensions.split()
}
_METADATA = frozenset(
    {b"manifest.toml", b"sbom.spdx.json", b"sbom.cdx.json", b"METADATA", b"RECORD", b"WHEEL"}
)

LIBRARIES = "libraries"
PROGRAMS = "programs"
LICENCES = "licences and notices"
MANUALS = "manual pages"
METADATA = "package metadata"
OTHER = "other"


def kind_of_file(path: bytes, mode: int) -> str:
    """Return in words what kind of file this is, by its name and mode.

    Args:
        path: In its package, raw.
        mode: Permission bits.
    """
    name = path.rpartition(b"/")[2]
    extension = name.rpartition(b".")[2].lower()
    if name in _METADATA:
        return METADATA
    if _LIBRARY.search(name):
        return LIBRARIES
    if _LEGAL.match(name):
        return LICENCES
    if b"/man/" in path and _MANUAL.search(name):
        return MANUALS
    if extension in _KIND and b"." in name:
        return _KIND[extension]
    return PROGRAMS if mode & _EXECUTABLE_BITS else OTHER
