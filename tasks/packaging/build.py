"""Runs `bentoml.build` in a process of its own: it imports the service, which must find the Bento's `models`, not ours.

python tasks/packaging/build.py FOLDER FILE    (FOLDER/build.json holds the options of bentoml.build)
"""

import json
import sys
from pathlib import Path


def main(folder: Path, out: Path) -> None:
    """Builds the Bento of a folder and exports it to a .bento file."""
    import bentoml
    from bentoml._internal import configuration

    # BentoML looks for uv, and installs it over the network where there is none, before it finds that nothing is to be
    # locked; with lock_packages=False it never runs it.
    configuration.get_uv_command = lambda: ["uv"]
    options = json.loads((folder / "build.json").read_text())
    bento = bentoml.build("service.py", build_ctx=str(folder), exclude=["build.json"], **options)
    bento.export(str(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
