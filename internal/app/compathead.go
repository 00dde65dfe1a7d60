package app

// compatHead is what docs/compat.md says before its generated tables.
const compatHead = `# What is served

Generated from the dispatch table by ` + "`make generate`" + `; ` + "`make lint`" + ` fails when it is stale. Methods are named by v1beta1; v1 is served by the same
rows. What is not served answers UNIMPLEMENTED (501 over REST) and names the method.

## Beyond the list of methods
- **Pipelines**: schema 2.0.0 and 2.1.0; DAGs, conditions, OneOf, loops (ParallelFor over parameters and artifacts, nested, with limits, Collected), exit handlers, retries of tasks
  and DAGs, importer, caching, and of platformSpec (a field ` + "`platforms`" + ` of the pipeline spec) workspaces, persistent volume claims and empty directories, as directories of this
  machine, and secrets as variables, from the files of ` + "`secrets:`" + `; secrets as volumes and configuration maps that are not optional are refused at create by task and
  field, the rest is listed as ` + "`warning:N`" + ` in the run's execution metadata.
  Resolvers are refused at create. A rerun takes over tasks of its original (pipeline_task_rerun_configs: skip_task, skip_downstream_tasks, inputs.parameter_values); inputs.artifacts is refused.
  Of the upstream project's compiled pipelines three do not run here: two pin a release of kfp that
  lacks what they call (Artifact.set_path, dsl.EmbeddedInput with kfp 2.14.3), one needs an image that its repository builds (kfp-image).
- **google-cloud-pipeline-components** (tested with 2.22.0): the launchers ` + "`custom_job` (v1, preview), `batch_prediction_job`, `model.upload_model`, `get_model`, `delete_model`, `endpoint.create_endpoint`" + `,
  ` + "`delete_endpoint`, `deploy_model`, `undeploy_model` and `wait_gcp_resources`" + ` (custom jobs, batch prediction jobs, operations) run as workloads of tategu, not in their container. All other modules are
  refused at create by task and module: ` + "`export_model`, `hyperparameter_tuning_job`, `vertex_notification_email`" + `, BigQuery, Dataflow, Dataproc, AutoML, datasets, evaluation.
  The header ` + "`X-Tategu-Id`" + ` chooses the numeric id of what a call makes.
- **Schedules**: pipeline jobs by cron with time zones; requests for notebook execution and model monitoring jobs are refused by name.
- **Serving**: LightGBM text files and XGBoost models (JSON, UBJSON, binary) natively (` + "`artifact_uri`" + ` holding the file, image absent, ` + "`tategu/lightgbm`" + `,
  ` + "`tategu/xgboost`" + ` or prebuilt; [models](guide/models.md)); TorchServe's archives and workflows by its Python workers, with its management of both in place and its metrics (not ` + "`/token`" + `: the platform's tokens hold there; workflows explain nothing; [models](guide/models.md#archives-of-torchserve)); ONNX models of tensors by the program tategu-runner, on CPUs (not: sequences of tensors, inputs that are maps, sparse and optional values, types below 8 bits); any HTTP server that listens on ` + "`$AIP_HTTP_PORT`" + `, by an ` + "`images:`" + ` rule: on its predict route, and on
  all others where invoke_route_prefix is set. Replicas follow the load between min_replica_count (0 is served in v1 too) and max_replica_count; scale_to_zero_spec takes periods from 1 s.
  Of autoscaling_metric_specs cpu/utilization, accelerator/duty_cycle and request_count are known. WebSockets, rollout_options and spot are not served.
  predict_request_response_logging_config writes JSON lines to a bucket; labels ` + "`tategu-canary`" + ` and ` + "`tategu-shadow`" + ` of an endpoint put a deployed model on trial ([serving](guide/serving.md)).
  A deployment of MODEL@ALIAS resolves the alias once, as in the cloud; the label ` + "`tategu-follow`" + ` has an endpoint follow it ([serving](guide/serving.md#following-an-alias)).
  Prebuilt images sklearn-cpu and xgboost-cpu with a pickle
  (model.joblib, model.pkl, model.bst) run as Python programs with the library's version, without the image, and so do custom prediction routines (` + "`tategu/cpr`" + `: sources and requirements in the artifact); other prebuilt images with files of their own are refused by name.
- **Other prediction protocols**, at an endpoint's own path ([serving](guide/serving.md#other-protocols)): ` + "`/invocations` and `/ping`" + ` (MLflow, SageMaker), and of the Open Inference Protocol
  v2 over REST ` + "`/v2`, health, models, `infer`" + ` with the binary tensor extension. OIP over gRPC, its repository and its other extensions are refused by name.
- **TorchServe** (` + "`tategu torchserve`" + `, [torchserve](guide/torchserve.md)): the HTTP and gRPC APIs of 0.12 with its Python workers; its Java plugins, C++ workers, torchrun (pipeline and tensor parallel), sequence batching, JKS key stores, ` + "`s3_sse_kms`" + ` of web addresses and raw tensors over gRPC are not served, and keys of its
  configuration that are about Java are named in the log; the guide lists every key of 0.12.0. Snapshots have workflows.
- **Vector search** ([guide](guide/vector-search.md)): an index takes upserts whatever its indexUpdateMethod is; shardSize and numbers of replicas are accepted and mean one shard in this server. Queries are answered on the
  region's host and on publicEndpointDomainName. DOT_PRODUCT_DISTANCE is reported as the dot product. Refused by name: encryption_spec, private_service_connect_config, deployed_index_auth_config, psc_automation_configs,
  enable_access_logging, ImportIndex. With ` + "`vectors: {backend: pgvector}`" + ` datapoints are in PostgreSQL: more than 16,000 dimensions are refused by name, beyond 4000 all vectors are compared, and shares of
  leaves to be searched change nothing, since its graphs have none.
- **Batch prediction** ([batch](guide/batch.md)): JSONL, CSV, Parquet and lists of files in gs:// in; JSONL, CSV and Parquet in gs:// out, and a table of a warehouse. BigQuery, TFRecord, explanations and
  model monitoring are refused by name.
- **Custom jobs**: container and Python package specs, several pools. Machine types are hints, except ` + "`custom-CORES-MEGABYTES`" + `; a command, argument or variable with
  ` + "`$(PORT)`" + ` gets a free port. TrainingPipelines, tuning and persistent resources are not served.
- **Containers** (Linux): an image pushed here, or an ` + "`images:`" + ` rule with rootfs, runs a task, custom job or model server in a container: own user, mount, process, IPC and host-name
  namespaces, an overlay, the machine's network or (` + "`network: none`" + `) none. Limits of memory, cores and processes need writable control groups (v1 or v2); a status says where they are refused.
  Docker or Podman runs them instead where ` + "`runtime:`" + ` says so or namespaces do not work, and pulls images when they are needed; without an engine ` + "`tategu image pull`" + ` brings them.
  Not served: networks between containers. GPUs are shown to them by their device nodes; the driver's libraries come from the image or its rule's mounts.
- **Accelerators**: counted and handed out by id; accelerator_type is not compared with the GPUs that are there. tpu_topology is refused. Machine types are hints and reserve nothing.
- **Storage**: the JSON API: objects with generations, versioning, soft deletion and restore, move, compose, rewrite, holds, retention (of buckets, with lock, and of objects),
  lifecycle (executed every hour), notifications (events are kept for their delivery, which comes later), IAM policies, partial answers, lists by glob, gzip bodies, batches; at
  ` + "`/storage/v1`" + ` and, for Node with an emulator host, at ` + "`/b`" + `. All storage classes are kept the same way. Soft deletion is off unless set. Access is uniform: ACL methods answer 400.
  Not served: the client's own and KMS encryption keys, HMAC keys, folders, managed folders, bulkRestore, restoring buckets, requester pays, autoclass, website, logging.
- **Storage, XML API**: objects (GET with several ranges, PUT, copy, compose, DELETE, resumable and multipart uploads), buckets (lists v1, v2 and ` + "`?versions`" + `, create,
  delete, multi-object delete, versioning, cors, lifecycle, tagging, location, storageClass), on storage.googleapis.com, BUCKET.storage.googleapis.com and at /BUCKET of the
  server's own address; there a bucket is made with ` + "`x-goog-project-id`" + `, and GET of the service is the storage host's alone. Access control lists answer 400 as with uniform
  access; parts copied from objects, object lock, x-amz-* headers, and writing of website, logging, billing or encryption are refused by name. Unfinished
  multipart uploads go 7 days after their last part. CORS rules are for the JSON
  API's object paths too; a page without a credential is nobody, on loopback as well.
- **Signed requests**: URLs and form policies of version 4 by keys of service accounts, for the XML API. Version 2, HMAC keys and signatures in the Authorization header are
  refused by name; the hmacKeys methods are not served.
- **Registry**: the OCI distribution specification v1.1 at ` + "`/v2/`" + ` (its conformance suite passes whole, sha512 too), Docker schema 2, catalog, deletes, referrers;
  schema 1 is refused. Images are run when their layers are tars, plain or with gzip or zstd; foreign and encrypted layers are stored and refused by name when run.
- **Identity**: key files of service accounts (RSA 2048, made here), signBlob and signJwt are served, and IAM policies on buckets decide; STS exchange, ID tokens,
  uploaded keys, policy conditions, groups and custom roles are refused by name. A program on the server's own machine that shows no token is the operator.
- **Limits of a request**: 64 MiB (` + "`limits.bodyBytes`" + `), 262,144 values and 200 levels of nesting (REST predictions by value lists are free of both), gzip that unpacks to at most
  100 times its size; a stored resource has at most 4 MiB, the metadata of artifacts, executions and contexts 200 kB.
- **Platforms**: run on linux/amd64; linux/arm64 and darwin compile and were not run.
`
