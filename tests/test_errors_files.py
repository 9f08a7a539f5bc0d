import errno
import hashlib
import json
import os
import stat

import pytest

from prunas.errors import InputError, unknown
from prunas.files import canonical, digest, read_json, write_atomic, write_json


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    error = unknown("space", "vg16-c10", ["vgg16-c10", "vgg19-c100", "densenet40-c10"])
    assert isinstance(error, InputError)
    assert str(error).startswith("unknown space 'vg16-c10'; did you mean vgg16-c10")
    assert "densenet40" not in str(error)


def test_a_name_like_no_other_is_answered_with_all_of_them():
    assert (
        str(unknown("metric", "zzz", ["params", "macs"])) == "unknown metric 'zzz'; there are: macs, params"
    )
    assert str(unknown("preset", "x", [])) == "unknown preset 'x'; there are: none"


def test_canonical_json_has_one_spelling():
    assert (
        canonical({"b": [1, 2.5], "a": {"d": None, "c": "é"}}) == '{"a":{"c":"\\u00e9","d":null},"b":[1,2.5]}'
    )
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})


def test_a_digest_is_the_start_of_the_sha256_of_the_canonical_text():
    whole = hashlib.sha256(b'{"a":1,"b":[2]}').hexdigest()
    assert digest({"b": [2], "a": 1}) == whole[:12]
    assert digest({"b": [2], "a": 1}, 24) == whole[:24]


def test_json_round_trip_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": [1, "é"]})
    assert read_json(path) == {"x": [1, "é"]}
    assert json.loads(path.read_text()) == {"x": [1, "é"]}
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_a_written_file_is_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError),
        (RuntimeError("No space left for a bug"), RuntimeError),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, failure, told):
    path = tmp_path / "result.json"
    write_json(path, "old")

    def fail(file):
        file.write(b"half of the ne")
        raise failure

    with pytest.raises(told, match="No space left"):
        write_atomic(path, fail)
    assert read_json(path) == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/x\.json: .*choose another"):
        write_json(tmp_path / "file" / "x.json", 1)


def test_a_missing_or_damaged_document_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*gone\.json: No such file"):
        read_json(tmp_path / "gone.json")
    for content in (b'{"a": ', b"\xff\xfe\x00"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.json is not valid JSON"):
            read_json(tmp_path / "bad.json")
