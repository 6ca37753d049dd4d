"""The names of models in memory: aliases, and models that no name leads to."""

from __future__ import annotations

from mes.domain import LoadedModel, PulledModel
from mes.scheduling.registry import DELETED, REPLACED
from mes.scheduling.runner_names import RunnerNames
from tests.fakes import spec


def pulled(**digests: str) -> dict[str, PulledModel]:
    return {
        f"{name}:latest": PulledModel(f"{name}:latest", digest, 10, "Q4_0", "1B")
        for name, digest in digests.items()
    }


def loaded(name: str, digest: str) -> LoadedModel:
    return LoadedModel(f"{name}:latest", digest, "Q4_0", 10, 0, None)


def catalog(**options: dict[str, int]):
    models = [spec(name, options=chosen) for name, chosen in options.items()]
    return {model.tag: model for model in models}


def test_names_of_one_digest_share_the_place_of_the_first_in_the_catalog():
    names = RunnerNames(pulled(b="1", a="1", c="2", x="1"), catalog(a={}, b={}, c={}))
    assert names.aliases([]) == {"b:latest": "a:latest", "x:latest": "a:latest"}


def test_names_with_other_load_options_have_places_of_their_own():
    models = catalog(a={"num_ctx": 1}, b={"num_ctx": 2}, c={"num_ctx": 2, "top_k": 3})
    names = RunnerNames(pulled(a="1", b="1", c="1", x="1"), models)
    assert names.aliases([]) == {"c:latest": "b:latest"}


def test_a_model_that_has_lost_its_name_has_the_place_of_another_name():
    names = RunnerNames(pulled(a="2", copy="1"), catalog(a={}, copy={}))
    assert names.aliases([loaded("a", "1")]) == {"a:latest@1": "copy:latest"}
    assert names.unreachable([loaded("a", "1")], 0.0) == []


def test_a_model_whose_digest_no_name_has_is_deleted_or_replaced():
    names = RunnerNames(pulled(a="2"), catalog(a={}, b={}))
    listed = [loaded("a", "1"), loaded("a", "2"), loaded("b", "3")]
    stuck = [(each.model, each.cause) for each in names.unreachable(listed, 0.0)]
    assert stuck == [("a:latest", REPLACED), ("b:latest", DELETED)]
