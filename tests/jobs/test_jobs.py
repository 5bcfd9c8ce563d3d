"""Jobs by name."""

import ml_collections
import pytest

from ukbob_jax import jobs
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs import verify


def config(**fields):
    return ml_collections.ConfigDict(fields)


def test_a_recipe_names_one_job_or_several_in_order():
    assert jobs.names(config(job="verify")) == ("verify",)
    assert jobs.names(config(job="ingest, solf,report")) == ("ingest", "solf", "report")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({}, r"config\.job: no job ''; there are inspect, ingest, verify"),
        ({"job": "ingest,fly"}, "no job 'fly'; there are"),
        ({"job": "ingest,"}, "no job ''"),
        ({"job": "judge"}, "'judge' is now 'check_labels'; so are its fields in a recipe"),
    ],
)
def test_unknown_and_renamed_jobs_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        jobs.names(config(**fields))


def test_every_job_is_a_module_that_can_be_run():
    assert jobs.find("verify") is verify
    for name in jobs.JOBS:
        assert callable(jobs.find(name).run), name
    assert set(jobs.RENAMED.values()) <= set(jobs.JOBS) and not set(jobs.RENAMED) & set(jobs.JOBS)
