"""Release folders: writing, verifying and reading them, and the two that ship with the package."""
