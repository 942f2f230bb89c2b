"""How robust a network is on rows of data: `certify`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from prunecert._models import Model, as_file
from toolkit.devices import without_modes_of_the_caller

if TYPE_CHECKING:
    from toolkit.commands.certify import Verification
    from toolkit.commands.row_options import Reading
    from toolkit.experiments.certification import Certified


@without_modes_of_the_caller()
def certify(
    model: Model,
    data: str | os.PathLike[str] | ArrayLike,
    *,
    epsilon: ArrayLike,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | ArrayLike | None = None,
    reading: Reading | None = None,
    verification: Verification | None = None,
    input_shape: Sequence[int] | None = None,
) -> Certified:
    """Certified accuracy of a classifier as it is: no point within ``epsilon`` of a row has another class.

    Values of rows become inputs of the network as ``(value / scale - mean) / std``. The same call continues a run that
    was interrupted. Progress is printed. Rows are answered by processes that are spawned, so a script calls this below
    ``if __name__ == "__main__":``.

    Args:
        model: Path of an ONNX file, an ``onnx.ModelProto``, or a torch module with ``input_shape``.
        data: ``FILE.npy``, ``FILE.npz:KEY``, ``FILE.csv``, a folder of images, the name of a data set, or an array
            ``(N, ...)`` of rows, which is kept in the folder.
        epsilon: Radius in the maximum norm, of ``value / scale``; one number, or one for each feature or channel.
        out: Folder for everything; one with answers of an earlier run is continued.
        labels: A file, ``predicted`` for the network's own answers, or an array ``(N,)`` of class numbers or names.
        reading: Which rows are meant, scale, mean and deviation, names of classes and outputs.
        verification: Time limit of each row, device, workers.
        input_shape: Shape of one input of a torch module, without the batch dimension.

    Returns:
        The figures and all rows; ``to_json()`` is what ``certified.json`` in the folder has.

    Raises:
        InputError: the network, the data or an option cannot be used.
        UnsupportedError: the network has operators without bounds.
        MachineError: a full disk, a folder that cannot be written, a process that cannot start.
    """
    from toolkit.commands.bench import machine_failures
    from toolkit.commands.certify import VERIFICATION
    from toolkit.commands.row_options import READING
    from toolkit.experiments.certification import certify_rows

    folder, verification = Path(out), verification or VERIFICATION
    with machine_failures():
        path = as_file(model, folder, input_shape)
        places = _place(data, folder / "data.npy"), None if labels is None else _place(labels, folder / "labels.npy")
        question = (reading or READING).question(path, *places, epsilon)
        return certify_rows(question, verification.timeout, verification.options(), folder)


def _place(given: str | os.PathLike[str] | ArrayLike, file: Path) -> str:
    """Where the rows or labels are: the place that the caller names, or a new file with the array."""
    import numpy as np

    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.asarray(given), allow_pickle=False)
    return str(file)
