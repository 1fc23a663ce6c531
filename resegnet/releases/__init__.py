"""Release folders: writing, verifying and reading them, and those that ship with the package."""
