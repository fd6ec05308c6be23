"""Looking into networks: what is in them, and, at work, where they go wrong.

- `summary`: the layers of a network in a table.
- `detect_anomaly`: where the first number that is not finite comes up.
- `profile`: where the time goes.
- `compare`: the first difference between two networks, or devices.
- `Shadow`: each operation of a network at work done again on another device.
"""

from .anomaly import AnomalyError, detect_anomaly
from .compare import TOLERANCE, Difference, compare, measure
from .profile import Event, Line, Profile, profile
from .shadow import Shadow, ShadowError
from .summary import Row, Summary, summary

__all__ = [
    "TOLERANCE",
    "AnomalyError",
    "Difference",
    "Event",
    "Line",
    "Profile",
    "Row",
    "Shadow",
    "ShadowError",
    "Summary",
    "compare",
    "detect_anomaly",
    "measure",
    "profile",
    "summary",
]
