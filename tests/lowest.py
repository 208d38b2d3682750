"""Print the oldest version of each direct dependency that `pyproject.toml` allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
for each in asked:
    if (found := re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", each)) is not None:
        print("{}=={}".format(*found.groups()))  # noqa: T201
