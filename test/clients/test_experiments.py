"""Experiments, runs and lineage, as programs use them."""

import json
import uuid

import pytest
from test_schedules import IMPORT


@pytest.fixture
def experiment(mode):
    """A new experiment without a TensorBoard; nothing is set afterwards."""
    from google.cloud import aiplatform

    name = f"e-{uuid.uuid4().hex}"
    aiplatform.init(
        experiment=name, experiment_description="words", experiment_tensorboard=False
    )
    yield name
    aiplatform.metadata.metadata._experiment_tracker.reset()


def test_run(experiment):
    """Parameters, metrics and curves of a run are read back."""
    from google.cloud import aiplatform

    with aiplatform.start_run("one"):
        aiplatform.log_params({"rate": 0.5, "layers": 3, "kind": "tree"})
        aiplatform.log_metrics({"accuracy": 0.75})
        aiplatform.log_classification_metrics(
            labels=["no", "yes"],
            matrix=[[4, 1], [0, 5]],
            fpr=[0.0, 1.0],
            tpr=[0.0, 1.0],
            threshold=[1.0, 0.0],
            display_name="matrix",
        )
        with pytest.raises(RuntimeError, match="tensorboard"):
            aiplatform.log_time_series_metrics({"accuracy": 0.5}, step=1)
    with aiplatform.start_run("one", resume=True):
        aiplatform.log_metrics({"accuracy": 0.8})
    run = aiplatform.ExperimentRun("one", experiment=experiment)
    assert run.get_params() == {"rate": 0.5, "layers": 3, "kind": "tree"}
    assert run.get_metrics() == {"accuracy": 0.8}
    (matrix,) = run.get_classification_metrics()
    assert (matrix["display_name"], matrix["matrix"]) == (
        "matrix",
        [[4.0, 1.0], [0.0, 5.0]],
    )
    assert run.state == aiplatform.gapic.Execution.State.COMPLETE
    assert [r.name for r in aiplatform.ExperimentRun.list(experiment=experiment)] == [
        "one"
    ]
    (row,) = aiplatform.get_experiment_df(experiment).to_dict("records")
    assert (row["run_name"], row["param.kind"], row["metric.accuracy"]) == (
        "one",
        "tree",
        0.8,
    )
    assert experiment in [e.name for e in aiplatform.Experiment.list()]
    run.delete()
    aiplatform.Experiment(experiment).delete()
    assert experiment not in [e.name for e in aiplatform.Experiment.list()]


def test_pipeline_of_an_experiment(experiment, tmp_path):
    """submit(experiment=) puts a pipeline's run beside the others."""
    from google.cloud import aiplatform

    template = tmp_path / "import.json"
    template.write_text(json.dumps(IMPORT))
    job = aiplatform.PipelineJob(
        display_name="import",
        template_path=str(template),
        pipeline_root="gs://experiment-root",
    )
    job.submit(experiment=experiment)
    job.wait()
    assert job.get_associated_experiment().name == experiment
    (row,) = aiplatform.get_experiment_df(experiment).to_dict("records")
    assert (row["run_name"], row["run_type"], row["state"]) == (
        job.name,
        "system.PipelineRun",
        "COMPLETE",
    )
    titles = {d.task_name: d.execution.schema_title for d in job.task_details}
    assert titles["load"] == "system.ImporterExecution"
    assert sorted(titles.values()) == ["system.ImporterExecution", "system.Run"]
    job.delete()


def test_lineage(experiment):
    """What a run read and wrote is found from each end."""
    from google.cloud import aiplatform

    with aiplatform.start_run("line"):
        data = aiplatform.Artifact.create(
            "system.Dataset", uri=f"gs://b/{experiment}", metadata={"rows": 3}
        )
        with aiplatform.start_execution(
            schema_title="system.ContainerExecution", display_name="train"
        ) as train:
            train.assign_input_artifacts([data])
            model = aiplatform.Artifact.create("system.Model", display_name="model")
            train.assign_output_artifacts([model])
    assert [a.name for a in train.get_input_artifacts()] == [data.name]
    assert [a.name for a in train.get_output_artifacts()] == [model.name]
    assert train.state == aiplatform.gapic.Execution.State.COMPLETE
    found = aiplatform.Artifact.list(
        filter=f'schema_title="system.Dataset" AND uri="gs://b/{experiment}"'
    )
    assert [a.name for a in found] == [data.name]
    client = data.api_client
    graph = client.query_artifact_lineage_subgraph(
        request={"artifact": data.resource_name, "max_hops": 1}
    )
    assert ([e.name for e in graph.executions], len(graph.events)) == (
        [train.resource_name],
        1,
    )
    whole = client.query_artifact_lineage_subgraph(
        request={"artifact": data.resource_name}
    )
    assert {a.name for a in whole.artifacts} == {
        data.resource_name,
        model.resource_name,
    }
    run = client.query_context_lineage_subgraph(
        context=f"{data.resource_name.split('/artifacts/')[0]}/contexts/{experiment}-line"
    )
    assert train.resource_name in [e.name for e in run.executions]
    store = data.resource_name.split("/artifacts/")[0]
    request = {"parent": store, "filter": f'uri="gs://b/{experiment}"', "force": True}
    client.purge_artifacts(request=request).result()
    assert aiplatform.Artifact.list(filter=f'uri="gs://b/{experiment}"') == []


def test_tensorboard_is_refused_by_name(mode):
    """What is not served says so."""
    from google.api_core.exceptions import MethodNotImplemented
    from google.cloud import aiplatform

    with pytest.raises(MethodNotImplemented, match="CreateTensorboard"):
        aiplatform.Tensorboard.create(display_name="board")
