"""The ledger: status, owners of objects, history. The only room that speaks SQL.

Readers never open it; what lies on disk is the truth, the ledger can be rebuilt.
"""

from regrain.ledger.beside import read_beside
from regrain.ledger.connection import open_ledger
from regrain.ledger.keeping import Unreferenced
from regrain.ledger.lifecycle import Concern, Event, Standing
from regrain.ledger.queries import Ledger, matches
from regrain.ledger.recording import UnrecordedObjectsError
from regrain.ledger.rows import Claim, NewCarrier, Outcome, PackageRow, Pending, Scanned, Totals

__all__ = [
    "Claim",
    "Concern",
    "Event",
    "Ledger",
    "NewCarrier",
    "Outcome",
    "PackageRow",
    "Pending",
    "Scanned",
    "Standing",
    "Totals",
    "UnrecordedObjectsError",
    "Unreferenced",
    "matches",
    "open_ledger",
    "read_beside",
]
