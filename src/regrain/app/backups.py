"""What becomes of backups, wherever they lie: values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.app.verification import Verdict

COMMAND = "regrain backup create"
RESTORE_COMMAND = "regrain backup restore"

RESTORED = "restored_from_backup"
"""The event of the history by which packages came back."""


@dataclass(slots=True)
class Backup:
    """What a backup did, or would do.

    Attributes:
        path: Where it is.
        packages: Packages that were copied.
        present: Packages that were there before.
        objects: Objects that were copied.
        size: Their bytes; at a URL, what was sent.
        legacy: Of the packages copied, those that only had a legacy directory.
        allocated: What it takes on disk at the most; only where nothing was copied yet.
        inodes: Likewise.
        failed: Packages that could not be copied, each with the reason.
        stopped: Whether it was ended early.
    """

    path: str
    packages: int = 0
    present: int = 0
    objects: int = 0
    size: int = 0
    legacy: int = 0
    allocated: int = 0
    inodes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


@dataclass(slots=True)
class Checked:
    """What was found of a backup.

    Attributes:
        verdict: What every byte of it says.
        store: The store that was compared with it; empty where none was.
        absent: Packages of that store that the backup lacks.
    """

    verdict: Verdict
    store: str = ""
    absent: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Restored:
    """What came back from a backup.

    Attributes:
        created: Whether the store was made for it.
        copied: Packages that were missing.
        healed: Damaged things that were healed.
        lost: What could not be healed, in one clause each.
        left: Packages of the backup that the store does not know, and that stay there.
        failed: Packages that could not be copied, each with the reason.
        objects: Objects that were copied.
        size: Their bytes; from a URL, what was fetched.
        stopped: Whether it was ended early.
    """

    created: bool = False
    copied: int = 0
    healed: int = 0
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    objects: int = 0
    size: int = 0
    stopped: bool = False
