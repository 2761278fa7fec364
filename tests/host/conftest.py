import subprocess

import pytest

import dev


@pytest.fixture(scope="session")
def archive() -> list[str]:
    """What a published archive of this checkout holds: git's files without those that .comfyignore names."""

    def listed(*options: str) -> set[str]:
        command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "-z", *options]
        return set(subprocess.run(command, cwd=dev.ROOT, capture_output=True, check=True, text=True).stdout.split("\0"))

    try:
        files = listed("--exclude-standard") - listed("--ignored", "--exclude-from=.comfyignore") - {""}
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the list of files comes from git: {error}")
    return sorted(file for file in files if (dev.ROOT / file).is_file())
