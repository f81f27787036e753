"""Archives that must be refused: what attackers, broken programs and broken disks make."""

from __future__ import annotations

from tests.archives import (
    BLOCK,
    END,
    GNU,
    archive,
    compressed,
    file,
    folder,
    gnu_long,
    hard_link,
    header,
    octal,
    padded,
    pax,
    skippable,
    sparse_records,
    sparse_tail,
    symlink,
)
from tests.trees import acl

BIG = b"\x80" + (1 << 80).to_bytes(11)
NEGATIVE = b"\xff" * 12
_SPARSE_DATA = padded(b"1\n0\n4\n") + padded(b"data")


def _sparse(name: bytes, records: list[tuple[bytes, bytes]], data: bytes) -> bytes:
    return pax(*records) + header(name, b"0", len(data)) + padded(data)


def _old_sparse(pairs: list[tuple[int, int]], size: int, stored: int) -> bytes:
    tail = sparse_tail(pairs, size)
    return header(b"f", b"S", stored, magic=GNU, tail=tail) + padded(b"x" * stored)


_SPARSE_NAME = b"GNUSparseFile.1/f"
HOSTILE: dict[str, tuple[bytes, str]] = {
    # names that lead elsewhere
    "absolute": (archive(file(b"/etc/evil")), "absolute name"),
    "absolute in pax": (archive(pax((b"path", b"/etc/evil")), file(b"f")), "absolute name"),
    "absolute in gnu": (archive(gnu_long(b"/evil"), file(b"", magic=GNU)), "absolute name"),
    "absolute directory": (archive(folder(b"/")), "absolute name"),
    "dots first": (archive(file(b"../evil")), "leads out"),
    "dots inside": (archive(file(b"a/../../evil")), "leads out"),
    "dots after dot": (archive(file(b"./../evil")), "leads out"),
    "dots in the end": (archive(folder(b"a/..")), "leads out"),
    "dots in pax": (archive(pax((b"path", b"a/../../evil")), file(b"f")), "leads out"),
    "dots in prefix": (archive(file(b"evil", tail=b"../..")), "leads out"),
    "dots in a sparse name": (
        archive(_sparse(_SPARSE_NAME, sparse_records(b"../evil", 4), _SPARSE_DATA)),
        "leads out",
    ),
    "prefix absolute": (archive(file(b"evil", tail=b"/etc")), "absolute name"),
    "empty component": (archive(file(b"a//b")), "empty component"),
    "empty component behind dot": (archive(file(b".//etc/evil")), "empty component|absolute"),
    "dot component": (archive(file(b"a/./b")), "means nothing"),
    "dot twice": (archive(file(b"././b")), "means nothing"),
    "file with a slash": (archive(file(b"a/")), "empty component"),
    "old file with a slash": (archive(file(b"a/", b"", kind=b"\0")), "empty component"),
    "no name": (archive(file(b"")), "without a name"),
    "empty name in pax": (archive(pax((b"path", b"")), file(b"f")), "without a name"),
    "NUL in a name": (archive(file(b"a\0b")), "NUL"),
    "NUL in a pax name": (archive(pax((b"path", b"a\0b")), file(b"f")), "NUL"),
    "NUL in a gnu name": (archive(gnu_long(b"a\0b"), file(b"a", magic=GNU)), "NUL"),
    "long component": (archive(pax((b"path", b"x" * 256)), file(b"f")), "name that is too long"),
    "root is a file": (archive(file(b".")), "a root that is a file"),
    "root is a link": (archive(symlink(b"./", b"/")), "a root that is a symlink"),
    # through what is already there
    "below a link": (
        archive(symlink(b"out", b"../outside"), file(b"out/evil")),
        "below what is no directory",
    ),
    "below a link up": (
        archive(symlink(b"out", b".."), folder(b"out/sub")),
        "below what is no directory",
    ),
    "below a link deep": (
        archive(symlink(b"a/out", b"../.."), file(b"a/out/outside/evil")),
        "below what is no directory",
    ),
    "below a file": (archive(file(b"f"), file(b"f/g")), "below what is no directory"),
    "over a link": (archive(symlink(b"f", b"../outside/kept"), file(b"f")), "same path twice"),
    "directory over a link": (archive(symlink(b"d", b".."), folder(b"d/")), "same path twice"),
    "file twice": (archive(file(b"f"), file(b"f")), "same path twice"),
    "file twice by dot": (archive(file(b"f"), file(b"./f")), "same path twice"),
    "directory twice": (archive(folder(b"d"), folder(b"d/")), "same path twice"),
    "root twice": (archive(folder(b"."), folder(b"./")), "same path twice"),
    "file over a directory": (archive(folder(b"d"), file(b"d")), "same path twice"),
    "file over an implied one": (archive(file(b"d/f"), file(b"d")), "same path twice"),
    "directory over a file": (archive(file(b"d"), folder(b"d")), "same path twice"),
    "link over a file": (archive(file(b"a"), file(b"b"), hard_link(b"b", b"a")), "path twice"),
    # hard links
    "hard link absolute": (archive(hard_link(b"l", b"/etc/passwd")), "absolute name"),
    "hard link out": (archive(hard_link(b"l", b"../outside/kept")), "leads out"),
    "hard link through a link": (
        archive(symlink(b"out", b"../outside"), hard_link(b"l", b"out/kept")),
        "below what is no directory",
    ),
    "hard link to nothing": (archive(hard_link(b"l", b"nothing")), "not in the archive before"),
    "hard link below nothing": (archive(hard_link(b"l", b"a/b")), "not in the archive before"),
    "hard link to later": (archive(hard_link(b"l", b"f"), file(b"f")), "not in the archive before"),
    "hard link to itself": (archive(hard_link(b"l", b"l")), "not in the archive before"),
    "hard link to a directory": (archive(folder(b"d"), hard_link(b"l", b"d")), "to a directory"),
    "hard link to the root": (archive(hard_link(b"l", b"./")), "to a directory"),
    "hard link with data": (
        archive(file(b"f"), header(b"l", b"1", 4, target=b"f") + padded(b"evil")),
        "hard link with content",
    ),
    "symlink without target": (archive(symlink(b"l", b"")), "impossible target"),
    "symlink to too much": (
        archive(pax((b"linkpath", b"x" * 4096)), symlink(b"l", b"x")),
        "impossible target",
    ),
    "symlink to NUL": (archive(pax((b"linkpath", b"a\0b")), symlink(b"l", b"a")), "target"),
    "symlink with data": (
        archive(header(b"l", b"2", 4, target=b"f") + padded(b"evil")),
        "symlink with content",
    ),
    # types
    "character device": (archive(header(b"d", b"3")), "character device"),
    "block device": (archive(header(b"d", b"4")), "block device"),
    "fifo": (archive(header(b"d", b"6")), "FIFO"),
    "contiguous": (archive(file(b"f", kind=b"7")), "unknown type"),
    "dump directory": (archive(header(b"d", b"D", magic=GNU)), "unknown type"),
    "multi-volume": (archive(header(b"d", b"M", magic=GNU)), "unknown type"),
    "solaris header": (archive(header(b"d", b"X")), "unknown type"),
    "unknown type": (archive(header(b"d", b"Z")), "unknown type"),
    "gnu type in posix": (archive(header(b"d", b"L", 4) + padded(b"abc\0")), "unknown type"),
    # numbers
    "checksum": (archive(header(b"f", checksum=b"0000000\0")), "checksum is wrong"),
    "no checksum": (archive(header(b"f", checksum=b"\0 \0 \0 \0 ")), "checksum is not a number"),
    "negative size": (archive(header(b"f", raw_size=NEGATIVE)), "negative size"),
    "huge size": (archive(header(b"f", raw_size=BIG)), "truncated"),
    "size that is no number": (archive(header(b"f", raw_size=b"12345678z\0")), "not a number"),
    "size with a tail": (archive(header(b"f", raw_size=b"4\x00777\0")), "not a number"),
    "size left out": (archive(header(b"f", raw_size=bytes(12))), "size is not a number"),
    "directory with data": (archive(header(b"d", b"5", 4) + padded(b"evil")), "with content"),
    "mode": (archive(file(b"f", mode=b"7777777\0")), "impossible mode"),
    "mode negative": (archive(file(b"f", mode=b"\xff" * 8)), "impossible mode"),
    "owner that chown ignores": (
        archive(file(b"f", uid=b"\x80\0\0\0\xff\xff\xff\xff")),
        "impossible uid",
    ),
    "owner negative": (archive(file(b"f", gid=b"\xff" * 8)), "impossible gid"),
    "time": (archive(file(b"f", mtime=BIG)), "impossible time"),
    "time that is none": (archive(pax((b"mtime", b"1e5")), file(b"f")), "not a time"),
    # headers that contradict each other
    "sizes": (archive(pax((b"size", b"3")), file(b"f", b"1234")), "size 4 and 3"),
    "owners": (archive(pax((b"uid", b"5")), file(b"f")), "uid 0 and 5"),
    "groups": (archive(pax((b"gid", b"5")), file(b"f")), "gid 0 and 5"),
    "two pax headers": (
        archive(pax((b"path", b"a")), pax((b"path", b"b")), file(b"f")),
        "two extended headers",
    ),
    "key twice": (archive(pax((b"path", b"a"), (b"path", b"b")), file(b"f")), "twice in one"),
    "two gnu names": (
        archive(gnu_long(b"a"), gnu_long(b"b"), file(b"a", magic=GNU)),
        "two long names",
    ),
    "pax, gnu name": (archive(pax((b"path", b"a")), gnu_long(b"b"), file(b"b")), "POSIX and GNU"),
    "gnu name, pax": (archive(gnu_long(b"b"), pax((b"path", b"a")), file(b"b")), "two extended"),
    "gnu name, posix member": (archive(gnu_long(b"bb"), file(b"b")), "GNU before POSIX"),
    "pax, gnu member": (archive(pax((b"path", b"a")), file(b"b", magic=GNU)), "POSIX before GNU"),
    "short name": (archive(gnu_long(b"aaaa"), file(b"b", magic=GNU)), "short name"),
    "file that links": (archive(header(b"f", target=b"/etc/passwd")), "a file that links"),
    "prefix in gnu": (archive(file(b"f", magic=GNU, tail=b"dir")), "incremental or multi-volume"),
    "behind the prefix": (archive(file(b"f", tail=bytes(163) + b"tar\0")), "behind its end"),
    "global path": (archive(pax((b"path", b"x"), kind=b"g"), file(b"f")), "global header"),
    "unknown keyword": (archive(pax((b"VENDOR.x", b"1")), file(b"f")), "unknown keyword"),
    "character set": (archive(pax((b"hdrcharset", b"KOI8")), file(b"f")), "character set"),
    "pax without a member": (archive(pax((b"path", b"a"))), "without its member"),
    "pax record too long": (archive(pax(raw=b"99 path=a\n"), file(b"f")), "not well formed"),
    "pax record too short": (archive(pax(raw=b"5 path=a\n"), file(b"f")), "not well formed"),
    "pax record no newline": (archive(pax(raw=b"9 path=abc"), file(b"f")), "not well formed"),
    "pax record no key": (archive(pax(raw=b"6 =aa\n"), file(b"f")), "not well formed"),
    "pax length zero": (archive(pax(raw=b"0 path=a\n"), file(b"f")), "not well formed"),
    "pax length signed": (archive(pax(raw=b"+9 path=a\n"), file(b"f")), "not well formed"),
    "pax empty": (archive(header(b"x", b"x", 0), file(b"f")), "impossible size"),
    "pax huge": (archive(header(b"x", b"x", 1 << 30)), "impossible size"),
    "gnu name huge": (archive(header(b"x", b"L", 1 << 30, magic=GNU)), "impossible size"),
    "padding": (archive(header(b"f", size=1) + b"a" + b"b" * 511), "between the end"),
    # attributes
    "attribute in no space": (
        archive(pax((b"SCHILY.xattr.evil", b"1")), file(b"f")),
        "unknown kind",
    ),
    "attribute long": (
        archive(pax((b"SCHILY.xattr.user." + b"x" * 251, b"1")), file(b"f")),
        "impossible name",
    ),
    "attribute large": (
        archive(pax((b"SCHILY.xattr.user.x", bytes(65537))), file(b"f")),
        "too large",
    ),
    "attribute in two versions": (
        archive(
            pax((b"SCHILY.xattr.user.a", b"1"), (b"LIBARCHIVE.xattr.user.a", b"Mg")), file(b"f")
        ),
        "in two versions",
    ),
    "attribute not base64": (
        archive(pax((b"LIBARCHIVE.xattr.user.a", b"!")), file(b"f")),
        "not base64",
    ),
    "capability": (
        archive(pax((b"SCHILY.xattr.security.capability", b"evil")), file(b"f")),
        "impossible extended attribute",
    ),
    "attribute on a link": (
        archive(pax((b"SCHILY.xattr.user.a", b"1")), symlink(b"l", b"x")),
        "impossible extended attribute",
    ),
    "access list": (archive(pax((b"SCHILY.acl.access", b"user::evil")), file(b"f")), "well formed"),
    "access list by name": (
        archive(
            pax(
                (
                    b"SCHILY.acl.access",
                    b"user::rw-,user:joe:r--,group::r--,mask::r--,other::r--",
                )
            ),
            file(b"f"),
        ),
        "names users",
    ),
    "access list in two versions": (
        archive(
            pax(
                (b"SCHILY.acl.access", b"user::rw-,user:7:rw-,group::r--,mask::r--,other::---"),
                (b"SCHILY.xattr.system.posix_acl_access", acl(8, 6)),
            ),
            file(b"f", mode=octal(0o640, 8)),
        ),
        "access list in two versions",
    ),
    "access list against the mode": (
        archive(pax((b"SCHILY.acl.access", b"user::rwx,group::rwx,other::rwx")), file(b"f")),
        "contradicts the mode",
    ),
    "access list in part": (
        archive(pax((b"SCHILY.acl.access", b"user::rw-")), file(b"f")),
        "the kernel would not take",
    ),
    "access list nfs": (archive(pax((b"SCHILY.acl.ace", b"x")), file(b"f")), "unknown keyword"),
    # sparse files
    "sparse overlap": (archive(_old_sparse([(0, 8), (4, 8)], 100, 16)), "broken map"),
    "sparse outside": (archive(_old_sparse([(96, 8)], 100, 8)), "sizes differ"),
    "sparse sum": (archive(_old_sparse([(0, 8)], 100, 9)), "sizes differ"),
    "sparse terabytes": (archive(_old_sparse([(0, 8)], 1 << 32, 8)), "decompression bomb"),
    "sparse negative": (
        archive(header(b"f", b"S", magic=GNU, tail=bytes(41 + 97) + NEGATIVE)),
        "sizes differ|negative",
    ),
    "sparse 0.1": (
        archive(pax((b"GNU.sparse.map", b"0,4")), file(b"f")),
        "old format",
    ),
    "sparse in part": (archive(pax((b"GNU.sparse.major", b"1")), file(b"f")), "unknown format"),
    "sparse 2.0": (
        archive(
            _sparse(
                _SPARSE_NAME,
                [(b"GNU.sparse.major", b"2"), *sparse_records(b"f", 4)[1:]],
                _SPARSE_DATA,
            )
        ),
        "unknown format",
    ),
    "sparse second name": (
        archive(_sparse(b"innocent", sparse_records(b"f", 4), _SPARSE_DATA)),
        "second name",
    ),
    "sparse map": (
        archive(_sparse(_SPARSE_NAME, sparse_records(b"f", 4), b"z" * 1024)),
        "broken map",
    ),
    "sparse map with a tail": (
        archive(_sparse(_SPARSE_NAME, sparse_records(b"f", 4), b"1\n0\n4\n".ljust(516, b"!"))),
        "broken map",
    ),
    "sparse map cut": (
        archive(_sparse(_SPARSE_NAME, sparse_records(b"f", 4), padded(b"2\n0\n4\n"))),
        "broken map",
    ),
    "sparse map huge": (
        archive(_sparse(_SPARSE_NAME, sparse_records(b"f", 4), padded(b"99999999\n"))),
        "too many pieces",
    ),
    # the end, and what is no archive
    "nothing": (b"", "it is empty"),
    "no end": (archive(end=b""), "truncated"),
    "half an end": (archive(end=bytes(BLOCK)), "truncated"),
    "half an end, then more": (archive(end=bytes(BLOCK) + file(b"f") + END), "ends too early"),
    "an odd end": (archive(end=END + bytes(100)), "middle of a block"),
    "more behind the end": (archive(end=END + file(b"f") + END), "behind its end"),
    "garbage behind the end": (archive(end=END + bytes(5000) + b"!"), "behind its end"),
    "no manifest": (file(b"f") + END, "without a manifest.toml"),
    "manifest below": (file(b"a/manifest.toml") + END, "without a manifest.toml"),
    "manifest is a link": (
        file(b"m") + symlink(b"manifest.toml", b"m") + END,
        "without a manifest.toml",
    ),
    "manifest is a directory": (folder(b"manifest.toml") + END, "without a manifest.toml"),
    "empty archive": (END, "without a manifest.toml"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(100), "gzip data"),
    "xz": (b"\xfd7zXZ\0" + bytes(100), "xz data"),
    "bzip2": (b"BZh9" + bytes(100), "bzip2 data"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip data"),
    "text": (b"hello world\n" * 100, "not a tar archive"),
    "short text": (b"hello", "shorter than a header"),
    "old tar": (archive(header(b"f", magic=bytes(8))), "not a tar archive"),
    # compressed
    "zstd of text": (compressed(b"hello\n" * 200), "not a tar archive"),
    "zstd of gzip": (compressed(b"\x1f\x8b\x08\0" + bytes(100)), "gzip data inside the zstd"),
    "zstd in zstd": (compressed(compressed(archive())), "zstd data inside"),
    "zstd of nothing": (compressed(b""), "shorter than a header"),
    "zstd cut": (compressed(archive())[:-1], "truncated"),
    "zstd then garbage": (compressed(archive()) + b"garbage", "behind its compressed data"),
    "zstd then a byte": (compressed(archive()) + b"\0", "behind its compressed data"),
    "zstd then more": (compressed(archive()) + compressed(file(b"f")), "behind its end"),
    "zstd then zstd cut": (compressed(archive()) + compressed(END)[:-1], "truncated"),
    "zstd skippable cut": (compressed(archive()) + skippable(b"1234")[:-1], "truncated"),
    "zstd dictionary": (
        b"\x28\xb5\x2f\xfd\x21\x05\x00\x01\x00\x00" + compressed(archive()),
        "with a dictionary",
    ),
    "zstd impossible block": (b"\x28\xb5\x2f\xfd\x00\x58\x07\x00\x00", "impossible block"),
    "zstd header": (b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "compressed data is broken|dictionary"),
    "zstd checksum": (compressed(archive())[:-1] + b"!", "compressed data is broken"),
}
"""Archives that must be refused, each with a pattern its reason matches."""
