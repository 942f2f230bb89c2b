"""Many questions: `bench` and `prune`, which leave everything they find in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.devices import without_modes_of_the_caller
from toolkit.errors import ExitCode

if TYPE_CHECKING:
    from toolkit.bench.run_options import Options
    from toolkit.commands.prune import Check, NetworkInput, Pruning, Tuning
    from toolkit.formats.vnncomp.instances import ResultRow


@dataclass(frozen=True)
class Run:
    """What a run came to, once it is done."""

    folder: Path
    """Holds ``results.csv``, ``report.html``, ``witnesses/``, and of a recipe ``benchmark/`` and ``summary.csv``."""
    consistent: bool
    """Whether no answer contradicts a known one (``expected.csv``) or an attack: if one does, something is wrong."""

    def results(self) -> list[ResultRow]:
        """One row for each instance, as ``results.csv`` has them: network, specification, verdict and seconds."""
        from toolkit.formats.vnncomp.instances import read_results

        return read_results(self.folder / "results.csv")

    def columns(self) -> dict[str, Run]:
        """The run of each column by its name, in their order; none of a run without variants and tools."""
        from toolkit.bench.columns import read_columns

        return {label: Run(self.folder / label, self.consistent) for label in read_columns(self.folder)}


@without_modes_of_the_caller()
def bench(
    target: str | os.PathLike[str] = "digits", *, out: str | os.PathLike[str], options: Options | None = None
) -> Run:
    """Run a recipe (prune, export, verify, report), or verify the instances of a benchmark folder.

    The same call continues a run that was interrupted. Progress is printed. Instances are answered by processes that
    are spawned, so a script calls this below ``if __name__ == "__main__":``.

    Args:
        target: A recipe (TOML), the name of one that comes along, a folder with ``instances.csv`` (VNN-COMP layout),
            or a folder of such folders. What exists comes before a name.
        out: Folder for the results; it is made, and one with answers of an earlier run is continued.
        options: The options of the command; ``out`` in them is not looked at.

    Raises:
        InputError: the target, a file in it or an option cannot be used; of an unknown name, with all that are known.
        UnsupportedError: a recipe asks for something that its network cannot have.
        MachineError: a full disk, a folder that cannot be written, a process that cannot start.
    """
    from toolkit.bench.run_options import Options
    from toolkit.commands.bench import run_target

    folder = Path(out)
    ended = run_target(Path(target), replace(options or Options(), out=folder))
    return Run(folder, ended.code != ExitCode.CONTRADICTION)


@without_modes_of_the_caller()
def prune(
    model: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    epsilon: float,
    out: str | os.PathLike[str],
    network_input: NetworkInput | None = None,
    pruning: Pruning | None = None,
    tuning: Tuning | None = None,
    check: Check | None = None,
) -> Run:
    """Prune and fine-tune a classifier, export and verify what comes of it, and compare it with the original.

    The original is also fine-tuned without pruning, which tells what pruning does from what training does. The networks
    are ONNX files in ``benchmark/`` of the folder. The rest is as with `bench`.

    Args:
        model: Path of an ``.onnx`` or ``.onnx.gz`` file (`export` writes one): a classifier of images in [0, 1] whose
            largest output is its answer.
        data: ``digits``, ``mnist``, ``cifar10``, ..., or the path of an archive (``.npz``) or of a folder of images.
        epsilon: Radius of robustness in the maximum norm, of pixels in [0, 1]; 0 leaves robustness out.
        out: Folder for everything; one with answers of an earlier run is continued.
        network_input: How images become what the network takes (mean and deviation), and the order of its classes.
        pruning: Method, densities and layers.
        tuning: Training after each step of pruning.
        check: How many images are verified, and how.

    Raises:
        InputError: the network, the data or an option cannot be used.
        UnsupportedError: the network cannot be pruned by this method.
        MachineError: a full disk, a folder that cannot be written, a process that cannot start.
    """
    from toolkit.commands import prune as command
    from toolkit.commands.bench import machine_failures

    folder = Path(out)
    with machine_failures():
        code = command.prune(
            Path(model),
            data=os.fspath(data),
            epsilon=str(float(epsilon)),
            output=folder,
            network_input=network_input or command.NETWORK_INPUT,
            pruning=pruning or command.PRUNING,
            tuning=tuning or command.TUNING,
            check=check or command.CHECK,
        )
    return Run(folder, code != ExitCode.CONTRADICTION)
