"""Write the digest that each image's tag has now into a Dockerfile and a Compose file.

    python3 deploy/image_digests.py Dockerfile docker-compose.yml

The tags stay as they are: change them first for a newer version. Needs docker with buildx, and asks
the registry of each image.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_IMAGE = re.compile(
    r"^(?P<before>(?:FROM|\s*image: (?:&\w+ )?)\s*)"
    r"(?P<tag>[\w./-]+:[\w.-]+)(?:@sha256:[0-9a-f]{64})?",
    re.MULTILINE,
)


def pinned(text: str, find_digest: Callable[[str], str]) -> str:
    """Return the text of a Dockerfile or Compose file with the digest of each image.

    Args:
        find_digest: returns the digest, such as `sha256:...`, of an image such as `nginx:1.30.7`.
    """
    return _IMAGE.sub(lambda m: f"{m['before']}{m['tag']}@{find_digest(m['tag'])}", text)


@cache
def digest_of(tag: str) -> str:
    """Return the digest of the tag in its registry; it is that of all platforms together."""
    command = ["docker", "buildx", "imagetools", "inspect", tag]
    answer = subprocess.run(
        [*command, "--format", "{{.Manifest.Digest}}"], stdout=subprocess.PIPE, text=True
    )
    digest = answer.stdout.strip()
    if answer.returncode or not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise SystemExit(f"{' '.join(command)} prints no digest; nothing was changed")
    return digest


def main(paths: list[Path]) -> None:
    texts = {path: pinned(path.read_text(), digest_of) for path in paths}
    for path, text in texts.items():
        path.write_text(text)
    for tag in re.findall(r"(\S+@sha256:\w+)", "\n".join(texts.values())):
        print(tag)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
