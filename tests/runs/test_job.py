import hashlib
import json
import pickle

import pytest

from prunas.errors import InputError
from prunas.runs.job import Job

JOB = Job("train", {"b": [1, 2], "a": {"x": 0.5}}, "vgg11-digits", "scratch-e")


def test_the_id_is_the_hash_of_format_work_and_spec():
    text = '{"format":2,"spec":{"a":{"x":0.5},"b":[1,2]},"work":"train"}'
    assert (
        JOB.id == hashlib.sha256(text.encode()).hexdigest()[:12] == "1f4092d95846"
    )  # orphans runs if it moves
    assert JOB.name == "scratch-e-1f4092d95846"


def test_order_and_tuples_do_not_change_the_id_but_values_do():
    assert Job(JOB.work, {"a": {"x": 0.5}, "b": (1, 2)}, "other", "dense").id == JOB.id
    assert Job(JOB.work, {"a": {"x": 0.5}, "b": [2, 1]}, JOB.space, JOB.label).id != JOB.id
    assert Job("evaluate", JOB.spec, JOB.space, JOB.label).id != JOB.id


def test_the_spec_is_a_copy():
    inner = {"x": 1}
    job = Job("train", {"a": inner}, "s", "l")
    inner["x"] = 2
    assert job.spec == {"a": {"x": 1}}


def test_json_and_pickle_round_trips():
    assert Job.from_json(json.loads(json.dumps(JOB.to_json()))) == JOB
    assert pickle.loads(pickle.dumps(JOB)) == JOB
    assert len({JOB, Job.from_json(JOB.to_json())}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"work": "prunas.works.train:run"}, "a registered name"),
        ({"work": "a b"}, "a registered name"),
        ({"space": "../up"}, "space '../up' cannot name a folder"),
        ({"label": ""}, "label '' cannot name a folder"),
        ({"label": ".hidden"}, "cannot name a folder"),
        ({"spec": {"loss": float("nan")}}, "cannot be written as JSON"),
        ({"spec": {"a": object()}}, "cannot be written as JSON"),
        ({"spec": [1]}, "must be a mapping, not list"),
    ],
)
def test_what_cannot_be_stored_is_refused(changes, words):
    fields = {"work": JOB.work, "spec": JOB.spec, "space": JOB.space, "label": JOB.label} | changes
    with pytest.raises(InputError, match=words.replace(".", r"\.")) as caught:
        Job(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "expected a JSON object, not list"),
        ({name: v for name, v in JOB.to_json().items() if name != "spec"}, "spec missing"),
        (JOB.to_json() | {"seed": 1}, "unknown field seed"),
        (JOB.to_json() | {"format": 1}, "written in format 1, this prunas reads format 2"),
        (JOB.to_json() | {"id": "0" * 12}, "does not belong to its content"),
    ],
)
def test_a_document_that_is_no_job_is_refused(document, words):
    with pytest.raises(InputError, match=words):
        Job.from_json(document)
