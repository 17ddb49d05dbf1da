"""Build hook: the package's long description and URLs, from the README and one setting in pyproject.toml."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def absolute_links(text: str, repository: str) -> str:
    """Return a text whose links lead into the repository, since a package index does not have its files.

    Args:
        text: Markdown with links relative to the top of the repository.
        repository: Address of the repository; while it is empty, links become plain text, and pictures are left out.

    Example:
        >>> absolute_links("See [docs](docs/index.md).", "https://github.com/OWNER/NAME")
        'See [docs](https://github.com/OWNER/NAME/blob/main/docs/index.md).'
    """

    def rewritten(link: re.Match[str]) -> str:
        picture, title, target = link.groups()
        if not repository:
            return "" if picture else title
        return f"{picture}[{title}]({repository}/{'raw' if picture else 'blob'}/main/{target})"

    return _LINK.sub(rewritten, text)


def project_urls(repository: str) -> dict[str, str]:
    """Return the URLs of the project; none while the address of the repository is empty.

    Example:
        >>> project_urls("https://github.com/OWNER/NAME")["Issues"]
        'https://github.com/OWNER/NAME/issues'
    """
    if not repository:
        return {}
    return {
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
    }


class CustomMetadataHook(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add both to the metadata of `[project]`."""
        repository = self.config["repository"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute_links(text, repository)}
        metadata["urls"] = project_urls(repository)
