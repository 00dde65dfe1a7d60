package training

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// cluster is the address of every replica, by pool.
type cluster [][]string

// Workloads says what a job runs, one workload a replica, pool by pool: the first
// is the chief, whose end is the end of the job. Addresses in the environment are
// placeholders. What cannot be run is an error that names the field.
func Workloads(job *pb.CustomJob) ([]runtime.Workload, error) {
	return workloads(job, placeholder(job))
}

func placeholder(job *pb.CustomJob) cluster {
	c := make(cluster, len(job.GetJobSpec().GetWorkerPoolSpecs()))
	for i, pool := range job.GetJobSpec().GetWorkerPoolSpecs() {
		c[i] = slices.Repeat([]string{"127.0.0.1:0"}, int(max(0, min(pool.ReplicaCount, maxReplicas))))
	}
	return c
}

// maxReplicas of all pools together: they share one machine.
const maxReplicas = 64

func workloads(job *pb.CustomJob, addresses cluster) ([]runtime.Workload, error) {
	if err := check(job.GetJobSpec()); err != nil {
		return nil, err
	}
	var out []runtime.Workload
	for p, pool := range job.JobSpec.WorkerPoolSpecs {
		for r := range int(pool.ReplicaCount) {
			w, err := workload(job, pool, field(p))
			if err != nil {
				return nil, err
			}
			w.ID = fmt.Sprintf("%s%d-%d", jobWorkloads(job.Name), p, r)
			if err := addCluster(w.Env, addresses, p, r); err != nil {
				return nil, err
			}
			out = append(out, w)
		}
	}
	for i := range out {
		if len(out) > 1 { // replicas wait for each other when they run
			out[i].Gang, out[i].GangSize = jobWorkloads(job.Name), len(out)
		}
	}
	return out, nil
}

// workloadPrefix starts the workload ids of custom jobs.
const workloadPrefix = "customjob-"

// jobWorkloads starts the workload ids of one job.
func jobWorkloads(job string) string { return workloadPrefix + path.Base(job) + "-" }

// ChiefWorkload is the id of the program whose end is the end of a job.
func ChiefWorkload(job string) string { return jobWorkloads(job) + "0-0" }

func field(pool int) string { return fmt.Sprintf("job_spec.worker_pool_specs[%d]", pool) }

// check refuses by name what the spec must not hold, or what we do not do.
func check(spec *pb.CustomJobSpec) error {
	switch {
	case len(spec.GetWorkerPoolSpecs()) == 0:
		return resource.Invalid("job_spec.worker_pool_specs", "a custom job needs a worker pool")
	case spec.PersistentResourceId != "":
		return resource.Unimplemented("job_spec.persistent_resource_id")
	case spec.EnableWebAccess:
		return resource.Unimplemented("job_spec.enable_web_access")
	}
	replicas := int64(0)
	for i, pool := range spec.WorkerPoolSpecs {
		replicas += pool.ReplicaCount
		switch {
		case pool.ReplicaCount < 0:
			return resource.Invalid(field(i)+".replica_count", "replica_count is %d", pool.ReplicaCount)
		case i == 0 && pool.ReplicaCount != 1:
			return resource.Invalid(field(i)+".replica_count", "the first worker pool is the chief and has exactly one replica, not %d", pool.ReplicaCount)
		case len(pool.NfsMounts) > 0:
			return resource.Unimplemented(field(i) + ".nfs_mounts")
		case len(pool.LustreMounts) > 0:
			return resource.Unimplemented(field(i) + ".lustre_mounts")
		case pool.GetMachineSpec().GetTpuTopology() != "":
			return resource.Unimplemented(field(i) + ".machine_spec.tpu_topology")
		}
	}
	if replicas > maxReplicas {
		return resource.Invalid("job_spec.worker_pool_specs", "%d replicas are asked for; %d is the most on one machine", replicas, maxReplicas)
	}
	return checkOutput(spec)
}

func checkOutput(spec *pb.CustomJobSpec) error {
	if base := spec.GetBaseOutputDirectory().GetOutputUriPrefix(); base != "" && !strings.HasPrefix(base, "gs://") {
		return resource.Invalid("job_spec.base_output_directory.output_uri_prefix", "%q is not a gs:// URI", base)
	}
	return nil
}

// workload translates one pool, without its place in the cluster.
func workload(job *pb.CustomJob, pool *pb.WorkerPoolSpec, at string) (runtime.Workload, error) {
	name, err := resource.ParseName(job.Name)
	if err != nil {
		return runtime.Workload{}, err
	}
	resources, err := resources(pool.GetMachineSpec(), at+".machine_spec")
	if err != nil {
		return runtime.Workload{}, err
	}
	w := runtime.Workload{
		Owner: job.Name, Project: name.Project(), ServiceAccount: job.JobSpec.ServiceAccount, Publish: true, Resources: resources,
	}
	// See "Environment variables for special Cloud Storage directories" of the
	// CustomJobSpec.base_output_directory field.
	w.Env = map[string]string{"CLOUD_ML_JOB_ID": name.ID(), "CLOUD_ML_PROJECT_ID": name.Project(), "CLOUD_ML_REGION": name.Location()}
	if base := strings.TrimSuffix(job.JobSpec.GetBaseOutputDirectory().GetOutputUriPrefix(), "/"); base != "" {
		for variable, dir := range map[string]string{"AIP_MODEL_DIR": "/model/", "AIP_CHECKPOINT_DIR": "/checkpoints/", "AIP_TENSORBOARD_LOG_DIR": "/logs/"} {
			w.Env[variable] = base + dir
			// Programs write to the mounted directory without making it first.
			w.Dirs = append(w.Dirs, runtime.GCSRoot+"/"+strings.TrimPrefix(base, "gs://")+dir)
		}
		slices.Sort(w.Dirs)
	}
	switch task := pool.Task.(type) {
	case *pb.WorkerPoolSpec_ContainerSpec:
		w.Image, w.Command, w.Args = task.ContainerSpec.GetImageUri(), task.ContainerSpec.GetCommand(), task.ContainerSpec.GetArgs()
		addEnv(w.Env, task.ContainerSpec.GetEnv())
		if w.Image == "" {
			return w, resource.Invalid(at+".container_spec.image_uri", "image_uri is not set")
		}
		w.Port = namesPort(w)
	case *pb.WorkerPoolSpec_PythonPackageSpec:
		addEnv(w.Env, task.PythonPackageSpec.GetEnv())
		return w, packaged(&w, task.PythonPackageSpec, at+".python_package_spec")
	default:
		return w, resource.Invalid(at, "neither container_spec nor python_package_spec is set")
	}
	return w, nil
}

// namesPort reports a program that asks for a port, by naming it where Kubernetes
// would fill it in.
func namesPort(w runtime.Workload) bool {
	texts := slices.AppendSeq(slices.Concat(w.Command, w.Args), maps.Values(w.Env))
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, "$(PORT)") || strings.Contains(s, "$(AIP_HTTP_PORT)") })
}

// resources are what a machine spec asks for. A machine type is a hint, except for a
// custom one, which somebody chose by numbers: custom-CORES-MEGABYTES, with a family
// in front as in n2-custom-4-8192; 0 leaves a number open.
func resources(m *pb.MachineSpec, at string) (runtime.Resources, error) {
	r := runtime.Resources{GPUs: int(m.GetAcceleratorCount())}
	found := regexp.MustCompile(`^(?:[a-z][a-z0-9]*-)?custom-(\d+)-(\d+)(?:-ext)?$`).FindStringSubmatch(m.GetMachineType())
	if found == nil {
		return r, nil
	}
	cores, err := strconv.ParseUint(found[1], 10, 31)
	megabytes, err2 := strconv.ParseUint(found[2], 10, 31)
	if err := errors.Join(err, err2); err != nil {
		return r, resource.Invalid(at+".machine_type", "machine_type %.40q: %v", m.GetMachineType(), err)
	}
	r.Cores, r.MemoryBytes = float64(cores), int64(megabytes)<<20
	return r, nil
}

// packaged installs the packages for the program alone and runs the module.
func packaged(w *runtime.Workload, s *pb.PythonPackageSpec, at string) error {
	switch {
	case s.GetExecutorImageUri() == "":
		return resource.Invalid(at+".executor_image_uri", "executor_image_uri is not set")
	case s.GetPythonModule() == "":
		return resource.Invalid(at+".python_module", "python_module is not set")
	}
	install := make([]string, 0, len(s.PackageUris))
	for i, uri := range s.PackageUris {
		object, ok := strings.CutPrefix(uri, "gs://")
		if !ok {
			return resource.Invalid(fmt.Sprintf("%s.package_uris[%d]", at, i), "%q is not a gs:// URI", uri)
		}
		w.Fetch = append(w.Fetch, uri)
		install = append(install, quote(runtime.GCSRoot+"/"+object))
	}
	script := "exec python3 -m " + quote(s.PythonModule) + ` "$@"`
	if len(install) > 0 {
		script = "python3 -m pip install --quiet " + strings.Join(install, " ") + " && " + script
	}
	w.Image, w.Command, w.Args = s.ExecutorImageUri, []string{"sh", "-c", script, "task"}, s.Args
	return nil
}

// quote makes one word of s for sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func addEnv(env map[string]string, given []*pb.EnvVar) {
	for _, v := range given {
		env[v.Name] = v.Value
	}
}

// clusterSpec is the CLUSTER_SPEC variable, as distributed training code reads it.
type clusterSpec struct {
	Cluster     map[string][]string `json:"cluster"`
	Environment string              `json:"environment"`
	Task        clusterTask         `json:"task"`
}

type clusterTask struct {
	Type  string `json:"type"`
	Index int    `json:"index"`
	Trial string `json:"trial,omitempty"`
}

// addCluster tells a replica where the others are: by pool in CLUSTER_SPEC, by
// TensorFlow's roles in TF_CONFIG.
func addCluster(env map[string]string, addresses cluster, pool, replica int) error {
	pools, roles := map[string][]string{}, map[string][]string{}
	for i, members := range addresses {
		if len(members) > 0 {
			pools["workerpool"+strconv.Itoa(i)], roles[role(i)] = members, members
		}
	}
	if err := addJSON(env, "CLUSTER_SPEC", clusterSpec{pools, "cloud", clusterTask{Type: "workerpool" + strconv.Itoa(pool), Index: replica}}); err != nil {
		return err
	}
	if len(pools) == 1 && len(addresses[0]) == 1 {
		return nil // TensorFlow takes a lone chief for a cluster and waits
	}
	if host, port, err := net.SplitHostPort(addresses[0][0]); err == nil {
		env["MASTER_ADDR"], env["MASTER_PORT"] = host, port
	}
	env["RANK"], env["WORLD_SIZE"] = strconv.Itoa(rank(addresses, pool, replica)), strconv.Itoa(len(slices.Concat(addresses...)))
	return addJSON(env, "TF_CONFIG", clusterSpec{roles, "cloud", clusterTask{Type: role(pool), Index: replica}})
}

func rank(addresses cluster, pool, replica int) int {
	for _, members := range addresses[:pool] {
		replica += len(members)
	}
	return replica
}

// role of a pool for TensorFlow, by the order that the API documents.
func role(pool int) string {
	if names := []string{"chief", "worker", "ps", "evaluator"}; pool < len(names) {
		return names[pool]
	}
	return "workerpool" + strconv.Itoa(pool)
}

func addJSON(env map[string]string, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, given := env[name]; !given {
		env[name] = string(b)
	}
	return nil
}
