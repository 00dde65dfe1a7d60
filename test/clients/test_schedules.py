"""PipelineJobSchedule and PipelineJob.create_schedule, as programs use them."""

import datetime
import json
import uuid

import pytest

IMPORT = {
    "schemaVersion": "2.1.0",
    "pipelineInfo": {"name": "import"},
    "components": {
        "comp": {
            "executorLabel": "exec",
            "outputDefinitions": {
                "artifacts": {
                    "artifact": {
                        "artifactType": {
                            "schemaTitle": "system.Artifact",
                            "schemaVersion": "0.0.1",
                        }
                    }
                }
            },
        }
    },
    "deploymentSpec": {
        "executors": {
            "exec": {
                "importer": {
                    "artifactUri": {"constant": "gs://bucket/x"},
                    "typeSchema": {
                        "schemaTitle": "system.Artifact",
                        "schemaVersion": "0.0.1",
                    },
                }
            }
        }
    },
    "root": {
        "dag": {
            "tasks": {
                "load": {"taskInfo": {"name": "load"}, "componentRef": {"name": "comp"}}
            }
        }
    },
}


@pytest.fixture
def pipeline(mode, tmp_path):
    """A PipelineJob that is not submitted."""
    from google.cloud import aiplatform

    template = tmp_path / "import.json"
    template.write_text(json.dumps(IMPORT))
    return aiplatform.PipelineJob(
        display_name="import",
        template_path=str(template),
        pipeline_root="gs://schedule-root",
        labels={"team": "blue"},
    )


def test_life_of_a_schedule(pipeline):
    """Create, get, list, update, pause, resume and delete."""
    from google.cloud import aiplatform
    from google.cloud.aiplatform_v1.types import Schedule

    name = f"yearly-{uuid.uuid4().hex}"
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=800)
    schedule = pipeline.create_schedule(
        cron="TZ=Europe/Berlin 30 2 1 1 *",
        display_name=name,
        end_time=end.isoformat(),
        allow_queueing=True,
        max_run_count=3,
        max_concurrent_run_count=2,
        max_concurrent_active_run_count=1,
    )
    got = aiplatform.PipelineJobSchedule.get(schedule.resource_name)
    assert got.state == Schedule.State.ACTIVE
    assert (got.cron, got.max_run_count, got.allow_queueing) == (
        "TZ=Europe/Berlin 30 2 1 1 *",
        3,
        True,
    )
    assert (got.max_concurrent_run_count, got.max_concurrent_active_run_count) == (2, 1)
    resource = got.gca_resource
    next_run = resource.next_run_time
    assert (next_run.month, next_run.day, next_run.hour, next_run.minute) == (
        1,
        1,
        1,
        30,
    )
    assert resource.start_time == resource.create_time or resource.start_time < next_run
    assert resource.create_pipeline_job_request.pipeline_job.labels["team"] == "blue"

    listed = aiplatform.PipelineJobSchedule.list(
        filter=f'display_name="{name}" AND state="ACTIVE"'
    )
    assert [s.resource_name for s in listed] == [schedule.resource_name]

    schedule.update(
        cron="CRON_TZ=America/New_York 0 4 1 6 *", max_run_count=5, allow_queueing=False
    )
    assert (schedule.cron, schedule.max_run_count) == (
        "CRON_TZ=America/New_York 0 4 1 6 *",
        5,
    )
    assert not schedule.allow_queueing
    schedule.pause()
    assert schedule.state == Schedule.State.PAUSED
    assert schedule.done()
    schedule.resume()
    assert schedule.state == Schedule.State.ACTIVE
    assert schedule.list_jobs() == []
    schedule.delete()
    assert aiplatform.PipelineJobSchedule.list(filter=f'display_name="{name}"') == []


def test_refusals(pipeline):
    """What cannot be scheduled says why."""
    from google.api_core.exceptions import BadRequest

    for cron, word in [
        ("TZ=Nowhere/None * * * * *", "Nowhere"),
        ("61 * * * *", "61"),
        ("0 0 30 2 *", "never"),
    ]:
        with pytest.raises(BadRequest, match=word):
            pipeline.create_schedule(cron=cron, display_name="bad")


def test_runs_and_completes(pipeline, mode):
    """The next minute has a run, and the only one."""
    if mode == "http":
        pytest.skip("waits for a minute of the clock, which is the same in every mode")
    schedule = pipeline.create_schedule(
        cron="* * * * *", display_name="once", max_run_count=1
    )
    schedule.wait()
    (job,) = schedule.list_jobs()
    job.wait()
    job = type(job).get(job.resource_name)
    resource = schedule.gca_resource
    assert resource.started_run_count == 1
    assert resource.last_scheduled_run_response.run_response == job.resource_name
    tick = resource.last_scheduled_run_response.scheduled_run_time
    assert job.gca_resource.schedule_name == schedule.resource_name
    assert job.display_name == f"import-{tick.strftime('%Y%m%d%H%M%S')}"
    assert job.labels["team"] == "blue"
    assert len(job.task_details) == 2
    schedule.delete()
    job.delete()
