"""What pyproject.toml cannot say: the config files lie outside the packages and are shipped."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Put configs/ where `tagger.base.shipped` looks for it in an installation."""

    def run(self):
        """Build the packages, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "tagger" / "configs"
            shutil.copytree("configs", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
