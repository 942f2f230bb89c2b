"""What ``pyproject.toml`` cannot say: the recipes of ``specs/`` are data of the installed package ``toolkit``."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies the recipes beside the code that finds them (``toolkit/catalogue.py``); a clone has them in ``specs/``."""

    def recipes(self) -> dict[Path, Path]:
        """Each recipe's copy, and the file that it is a copy of."""
        folder = Path(self.build_lib) / "toolkit" / "recipes"
        return {folder / path.name: path for path in sorted(Path("specs").glob("*.toml"))}

    def run(self) -> None:
        """Build the packages, and copy the recipes unless the clone itself is what gets installed."""
        super().run()
        if not self.editable_mode:
            for copy, recipe in self.recipes().items():
                self.mkpath(str(copy.parent))
                self.copy_file(str(recipe), str(copy))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that are built."""
        copies = [] if self.editable_mode else [str(copy) for copy in self.recipes()]
        return [*super().get_outputs(include_bytecode), *copies]


setup(cmdclass={"build_py": BuildWithRecipes})
