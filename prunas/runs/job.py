"""A job: one piece of work as data that any process can execute."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunas.errors import InputError
from prunas.files import FORMAT, canonical, check_format, digest, names_folder
from prunas.plugins import REGISTERED_NAME

__all__ = ["PLACES", "Job"]

PLACES = "places"


@dataclass(frozen=True, slots=True)
class Job:
    """What to compute, fully resolved, and the name its folder gets.

    Jobs with the same `id` must have the same `space` and `label`: derive both from what is in `spec`.

    Attributes:
        work: Registered name of what does it, see `prunas.names`; `execute` says how it is called.
        spec: JSON-able; everything that determines the result and nothing else. Kept as a plain copy in which
            tuples are lists; not to be changed.
        space: Folder that holds the run, named after its search space.
        label: Readable start of the run's folder name, for example "scratch-e".
        places: Where the work finds on this machine what its spec names, such as `{"data": FOLDER}`, and what it
            leaves here beside its result. No part of the id or of equality: the same data in another folder are
            the same job. The work reads it as `spec["places"]`, which is there only if there are places.
        id: Twelve hex digits that name what is computed, the same on every machine.
    """

    work: str
    spec: Mapping[str, Any] = field(hash=False)
    space: str
    label: str
    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses what cannot be stored or found again."""
        if not (isinstance(self.work, str) and REGISTERED_NAME.fullmatch(self.work)):
            raise InputError(f"job: work must be a registered name such as 'train', not {self.work!r}")
        for what, name in (("space", self.space), ("label", self.label)):
            if not (isinstance(name, str) and names_folder(name)):
                raise InputError(
                    f"job: {what} {name!r} cannot name a folder; use letters, digits, and . _ + -"
                )
        if not isinstance(self.spec, Mapping):
            raise InputError(f"job: spec must be a mapping, not {type(self.spec).__name__}")
        try:
            plain = json.loads(canonical(dict(self.spec)))
        except (TypeError, ValueError) as error:
            raise InputError(f"job: spec cannot be written as JSON ({error})") from error
        if PLACES in plain:
            raise InputError(f"job: spec must not name {PLACES!r}, which decide nothing about a result")
        object.__setattr__(self, "spec", plain)
        object.__setattr__(self, "places", dict(self.places))
        object.__setattr__(self, "id", digest({"format": FORMAT, "work": self.work, "spec": plain}))

    @property
    def task(self) -> Mapping[str, Any]:
        """What the work is called with: the spec, and the places if there are any."""
        return {**self.spec, PLACES: self.places} if self.places else self.spec

    @property
    def name(self) -> str:
        """Label and id: the name of the run's folder within its space."""
        return f"{self.label}-{self.id}"

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values."""
        document = {
            "format": FORMAT,
            "id": self.id,
            "work": self.work,
            "label": self.label,
            "space": self.space,
            "spec": self.spec,
        }
        return document | ({PLACES: dict(self.places)} if self.places else {})

    @classmethod
    def from_json(cls, document: Any) -> "Job":
        """The job `to_json` wrote.

        Raises:
            InputError: A field is missing, unknown or unusable, the format is another one, or the id does not
                belong to the content.
        """
        if not isinstance(document, Mapping):
            raise InputError(f"job: expected a JSON object, not {type(document).__name__}")
        check_format(document, "job")
        fields = {"format", "id", "work", "label", "space", "spec"}
        if missing := sorted(fields - document.keys()):
            raise InputError(f"job: {', '.join(missing)} missing")
        if extra := sorted(document.keys() - fields - {PLACES}):
            raise InputError(f"job: unknown field {', '.join(extra)}; there are: {', '.join(sorted(fields))}")
        places = document.get(PLACES, {})
        if not isinstance(places, Mapping):
            raise InputError(f"job: {PLACES} must be a mapping, not {type(places).__name__}")
        job = cls(document["work"], document["spec"], document["space"], document["label"], places)
        if job.id != document["id"]:
            raise InputError(f"job: id {document['id']!r} does not belong to its content, which is {job.id}")
        return job
