"""Print what the package and its tests depend on, each at the lowest version that pyproject.toml allows.

`>=` becomes `==`, so that each bound is stated once. Indirect dependencies stay free: they come in today's
versions, as they do for a user who has an old version of one of ours.
"""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in project["dependencies"] + extras["onnx"] + extras["tensorboard"] + extras["dev"]:
    if ">=" in requirement:
        print(requirement.replace(">=", "=="))
