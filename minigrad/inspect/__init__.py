"""Looking into networks: what is in them, and, at work, where they go wrong.

- `summary`: the layers of a network in a table.
- `explain`: one layer opened up on real numbers, step by step, and checked on the spot.
- `detect_anomaly`: where the first number that is not finite comes up.
- `profile`: where the time goes.
- `launches`: what a GPU is given to run, with bytes and operations.
- `limits`: how fast a device multiplies and copies at most.
- `geometry`: the sizes of a convolution, and how evenly its kernel covers the image.
- `graph`: how a tensor was computed, as a picture.
- `compare`: the first difference between two networks, or devices.
- `Shadow`: each operation of a network at work done again on another device.

Their results show themselves in Jupyter notebooks, as tables and pictures.
"""

from .anomaly import AnomalyError, detect_anomaly
from .compare import TOLERANCE, Difference, compare, measure
from .explain import Check, Explanation, Opened, Step, Steps, explain, explains
from .geometry import Geometry, geometry
from .graph import Box, Graph, graph
from .launches import Launch, Launches, launches
from .limits import Limits, limits
from .profile import Event, Line, Profile, profile
from .shadow import Shadow, ShadowError
from .summary import Row, Summary, summary

__all__ = [
    "TOLERANCE",
    "AnomalyError",
    "Box",
    "Check",
    "Difference",
    "Event",
    "Explanation",
    "Geometry",
    "Graph",
    "Launch",
    "Launches",
    "Limits",
    "Line",
    "Opened",
    "Profile",
    "Row",
    "Shadow",
    "ShadowError",
    "Step",
    "Steps",
    "Summary",
    "compare",
    "detect_anomaly",
    "explain",
    "explains",
    "geometry",
    "graph",
    "launches",
    "limits",
    "measure",
    "profile",
    "summary",
]
