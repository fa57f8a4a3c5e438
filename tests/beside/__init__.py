"""Beside real third-party packages: `tox -e beside`. Each module skips itself where its packages are not."""
