"""Install the CUDA build of torch into its own folder, without CUDA libraries nobody needs.

python _cuda_torch.py VERSION FOLDER      called by test-cuda-path
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType


def main(version: str, folder: Path) -> None:
    # === takes no other build of the version, where there are several
    install(folder, f"torch==={version}")
    [wanted] = folder.glob("torch-*.dist-info/METADATA")
    cuda = re.search(
        r"^Requires-Dist: cuda-toolkit\[.*\]==(\d+\.\d+)", wanted.read_text(), re.MULTILINE
    )
    if not cuda:
        sys.exit(f"torch {version} does not say which CUDA it is built with")
    install(folder, f"nvidia-cuda-runtime=={cuda[1]}.*")  # its headers
    (folder / "ready").touch()


def install(folder: Path, requirement: str) -> None:
    command = setup().installer()
    subprocess.run([*command, "--quiet", "--no-deps", "--target", folder, requirement], check=True)


def setup() -> ModuleType:
    """Return the script beside this one that knows how packages are installed here."""
    spec = importlib.util.spec_from_file_location("_setup", Path(__file__).with_name("_setup.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
