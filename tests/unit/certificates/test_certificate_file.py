"""The file of a certificate can be read while it grows, and forgets what is taken back."""

from __future__ import annotations

from pathlib import Path

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.writer import CertificateWriter
from toolkit.proof.stream import RecordKind, records


def read(path: Path) -> list[tuple[int, bytes]]:
    with path.open("rb") as file:
        return list(records(file))


def test_what_is_taken_back_was_never_there(tmp_path: Path) -> None:
    path, writer = tmp_path / "c", CertificateWriter(bytes(32), bytes(32), ["z"])
    file = CertificateFile(path.open("wb"), writer)
    file.add(writer.case(0)[1])
    mark = file.mark()
    before = read(path)
    context, record = writer.case(1)
    file.add(record)
    file.flush()
    assert (context, len(read(path))) == (1, len(before) + 1)
    for _ in range(2):
        file.back_to(mark)
        assert read(path) == before
        context, record = writer.case(2)
        assert context == 1
        file.add(record)
    file.end()
    file.close()
    assert [kind for kind, _ in read(path)] == [RecordKind.HEADER, RecordKind.CASE, RecordKind.CASE, RecordKind.END]
    assert read(path)[2][1] == (2).to_bytes(8, "little")
