"""Version and address of the package, in a module of its own so that every other module can import them."""

__version__ = "0.1.0"

# Address of the public repository, without a slash at the end. No address is known yet: empty means that every page and
# file that would link to it leaves the link out.
REPOSITORY_URL = ""
