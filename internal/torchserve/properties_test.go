package torchserve_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func TestReadProperties(t *testing.T) {
	t.Parallel()
	text := "# a comment\n! another\ninference_address=http://0.0.0.0:9080\r\n  management_address : http://127.0.0.1:9081\njob_queue_size 7\n" +
		"load_models=a.mar, b=c.mar,\\\n   d.mar\ndefault_response_timeout=5\nmodel_store=$$STORE$$/models\nnumber_of_netty_threads=4\ndebug=true\nmade_up=1\nenable_envvars_config=true\n" +
		"models={\"m\": {\"1.0\": {\"batchSize\": 4}}}\ntoken_expiration_min=1.5\nblacklist_env_vars=AWS_.*\nwith\\ space=\\u00e9\\t\n"
	c, err := torchserve.ReadProperties(torchserve.Defaults(), []byte(text), environment(map[string]string{"STORE": "/data", "TS_JOB_QUEUE_SIZE": "9", "TS_OPEN_INFERENCE_PROTOCOL": "oip"}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.Inference != "http://0.0.0.0:9080" || c.Listen.Management != "http://127.0.0.1:9081" || c.JobQueueSize != 9 || c.ResponseTimeout != 5*time.Second || c.ModelStore != "/data/models" ||
		!slices.Equal(c.LoadModels, []string{"a.mar", "b=c.mar", "d.mar"}) || c.Listen.TokenLife != 90*time.Second || !c.Listen.OpenInference || c.Properties["with space"] != "é\t" || len(c.Models) != 1 {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Ignored, []string{"debug", "number_of_netty_threads"}) || !slices.Contains(c.Unknown, "made_up") {
		t.Errorf("ignored %v, unknown %v", c.Ignored, c.Unknown)
	}
	for text, want := range map[string]string{
		"job_queue_size=many": "whole number", "job_queue_size=0": "whole number", "enable_metrics_api=perhaps": "true or false", "models=[": "JSON", "model_snapshot={": "JSON",
		"blacklist_env_vars=(": "regular expression", "max_response_size=-1": "bytes", "max_request_size=4294967295": "up to 2147483647", "default_startup_timeout=soon": "seconds", "model_store=$$NONE$$": "no variable NONE", `a=\u12`: "hexadecimal", "a=\xff": "UTF-8",
	} {
		if _, err := torchserve.ReadProperties(torchserve.Defaults(), []byte(text), environment(nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// upstream are the keys of TorchServe 0.12.0, as its ConfigManager names them, and vmargs,
// which its launcher reads.
func upstream() []string {
	return strings.Fields(`debug inference_address management_address metrics_address load_models blacklist_env_vars default_workers_per_model default_response_timeout
		default_startup_timeout unregister_model_timeout number_of_netty_threads netty_client_threads job_queue_size number_of_gpu metrics_config metrics_mode
		model_metrics_auto_detect disable_system_metrics ipex_enable cpu_launcher_enable cpu_launcher_args ipex_gpu_enable async_logging cors_allowed_origin
		cors_allowed_methods cors_allowed_headers decode_input_request keystore keystore_pass keystore_type certificate_file private_key_file max_request_size
		max_response_size limit_max_image_pixels default_service_handler service_envelope model_server_home model_store prefer_direct_buffer allowed_urls
		install_py_dep_per_model enable_metrics_api grpc_inference_address grpc_management_address grpc_inference_port grpc_management_port
		grpc_inference_max_connection_age_ms grpc_management_max_connection_age_ms grpc_inference_max_connection_age_grace_ms
		grpc_management_max_connection_age_grace_ms enable_grpc_ssl initial_worker_port initial_distribution_port workflow_store cpp_log_config
		ts_open_inference_protocol token_expiration_min ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end
		disable_token_authorization enable_model_api use_native_io io_ratio metric_time_interval enable_envvars_config model_snapshot models version
		system_metrics_cmd use_env_allowed_urls python snapshot_store plugins_path vmargs`)
}

// TestUpstreamKeys: every key of TorchServe's is known, and the guide tells of it, as of
// our own.
func TestUpstreamKeys(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/guide/torchserve.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range append(upstream(), "worker_shortcuts") {
		c, err := torchserve.ReadProperties(torchserve.Defaults(), []byte(key+"="), environment(nil))
		if err == nil && len(c.Unknown) > 0 {
			t.Errorf("%s is not known", key)
		}
		if !strings.Contains(string(guide), "`"+key+"`") && !strings.Contains(string(guide), "`"+key+"=") {
			t.Errorf("the guide says nothing of %s", key)
		}
	}
}

// TestEnvironmentKeys: variables have TorchServe's names, of keys that do nothing here too.
func TestEnvironmentKeys(t *testing.T) {
	t.Parallel()
	c, err := torchserve.ReadProperties(torchserve.Defaults(), []byte("enable_envvars_config=true"), environment(map[string]string{
		"TS_TOKEN_EXPIRATION_TIME_MIN": "5", "TS_DISABLE_SYSTEM_METRICS": "true", "TS_IPEX_ENABLE": "true", "TS_HEADER_KEY_SEQUENCE_ID": "x-sequence", "TS_MADE_UP": "1",
	}))
	if err != nil || c.Listen.TokenLife != 5*time.Minute || c.Listen.MetricsEvery != 0 || !slices.Equal(c.Ignored, []string{"ipex_enable"}) || c.Listen.SequenceIDHeader != "x-sequence" || len(c.Unknown) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte("a=b\nc : d\ne f\\\n  g\nload_models=x,y\njob_queue_size=3\n"))
	f.Add([]byte("model_snapshot={\"models\":{}}\n\\u0041=\\n\n$$HOME$$=$$HOME$$\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := torchserve.ReadProperties(torchserve.Defaults(), data, environment(map[string]string{"HOME": "h"}))
		if err == nil && c.JobQueueSize < 1 {
			t.Errorf("a queue of %d is taken", c.JobQueueSize)
		}
	})
}
