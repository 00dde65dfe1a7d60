package torchserve

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is one key of config.properties: what it sets.
type key struct {
	name string
	set  func(c *Config, v string) error
}

func text(f func(c *Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *f(c) = v; return nil }
}

func boolean(f func(c *Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		switch strings.ToLower(v) {
		case "true":
			*f(c) = true
		case "false":
			*f(c) = false
		default:
			return errors.New("want true or false")
		}
		return nil
	}
}

func count(least int, f func(c *Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || int(n) < least {
			return fmt.Errorf("want a whole number from %d", least)
		}
		*f(c) = int(n)
		return nil
	}
}

func size(f func(c *Config) *int64) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 || n > math.MaxInt32 { // lengths have four bytes on the way to workers
			return fmt.Errorf("want a number of bytes up to %d", math.MaxInt32)
		}
		*f(c) = n
		return nil
	}
}

func span(unit time.Duration, f func(c *Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || n < 0 || n > float64(math.MaxInt64)/float64(unit)/2 {
			return fmt.Errorf("want a number of %s", map[time.Duration]string{time.Millisecond: "milliseconds", time.Second: "seconds", time.Minute: "minutes"}[unit])
		}
		*f(c) = time.Duration(n * float64(unit))
		return nil
	}
}

func list(f func(c *Config) *[]string) func(*Config, string) error {
	return func(c *Config, v string) error {
		*f(c) = nil
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*f(c) = append(*f(c), s)
			}
		}
		return nil
	}
}

// keys lists every key that has an effect.
func keys() []key {
	return slices.Concat(engineKeys(), listenKeys())
}

func engineKeys() []key {
	return []key{
		{"model_store", text(func(c *Config) *string { return &c.ModelStore })},
		{"workflow_store", text(func(c *Config) *string { return &c.WorkflowStore })},
		{"python", text(func(c *Config) *string { return &c.Python })},
		{"worker_shortcuts", boolean(func(c *Config) *bool { return &c.Shortcuts })},
		{"allowed_urls", list(func(c *Config) *[]string { return &c.AllowedURLs })},
		{"blacklist_env_vars", func(c *Config, v string) error {
			c.DenyEnv = v
			if _, err := regexp.Compile(v); err != nil {
				return fmt.Errorf("no regular expression: %w", err)
			}
			return nil
		}},
		{"load_models", list(func(c *Config) *[]string { return &c.LoadModels })},
		{"model_snapshot", func(c *Config, v string) error {
			c.ModelSnapshot = json.RawMessage(v)
			if !json.Valid(c.ModelSnapshot) {
				return errors.New("no JSON")
			}
			return nil
		}},
		{"models", func(c *Config, v string) error {
			c.Models = nil
			if err := json.Unmarshal([]byte(v), &c.Models); err != nil {
				return fmt.Errorf("no JSON object: %w", err)
			}
			return nil
		}},
		{"default_workers_per_model", count(0, func(c *Config) *int { return &c.DefaultWorkers })},
		{"default_response_timeout", span(time.Second, func(c *Config) *time.Duration { return &c.ResponseTimeout })},
		{"default_startup_timeout", span(time.Second, func(c *Config) *time.Duration { return &c.StartupTimeout })},
		{"unregister_model_timeout", span(time.Second, func(c *Config) *time.Duration { return &c.UnregisterTime })},
		{"job_queue_size", count(1, func(c *Config) *int { return &c.JobQueueSize })},
		{"default_service_handler", text(func(c *Config) *string { return &c.DefaultHandler })},
		{"service_envelope", text(func(c *Config) *string { return &c.Envelope })},
		{"number_of_gpu", count(0, func(c *Config) *int { return &c.GPUs })},
		{"install_py_dep_per_model", boolean(func(c *Config) *bool { return &c.Requirements })},
		{"limit_max_image_pixels", boolean(func(c *Config) *bool { return &c.LimitPixels })},
		{"decode_input_request", boolean(func(c *Config) *bool { return &c.DecodeRequests })},
		{"max_response_size", size(func(c *Config) *int64 { return &c.MaxResponse })},
		{"metrics_config", text(func(c *Config) *string { return &c.MetricsConfig })},
	}
}

func listenKeys() []key {
	return []key{
		{"inference_address", text(func(c *Config) *string { return &c.Listen.Inference })},
		{"management_address", text(func(c *Config) *string { return &c.Listen.Management })},
		{"metrics_address", text(func(c *Config) *string { return &c.Listen.MetricsAddress })},
		{"grpc_inference_address", text(func(c *Config) *string { return &c.Listen.GRPCInference })},
		{"grpc_management_address", text(func(c *Config) *string { return &c.Listen.GRPCManagement })},
		{"grpc_inference_port", count(0, func(c *Config) *int { return &c.Listen.GRPCInferencePort })},
		{"grpc_management_port", count(0, func(c *Config) *int { return &c.Listen.GRPCManagementPort })},
		{"grpc_inference_max_connection_age_ms", span(time.Millisecond, func(c *Config) *time.Duration { return &c.Listen.GRPCInferenceAge })},
		{"grpc_management_max_connection_age_ms", span(time.Millisecond, func(c *Config) *time.Duration { return &c.Listen.GRPCManagementAge })},
		{"grpc_inference_max_connection_age_grace_ms", span(time.Millisecond, func(c *Config) *time.Duration { return &c.Listen.GRPCInferenceGrace })},
		{"grpc_management_max_connection_age_grace_ms", span(time.Millisecond, func(c *Config) *time.Duration { return &c.Listen.GRPCManagementGrace })},
		{"enable_grpc_ssl", boolean(func(c *Config) *bool { return &c.Listen.GRPCTLS })},
		{"ts_open_inference_protocol", func(c *Config, v string) error {
			c.Listen.OpenInference = v == "oip" || v == "true"
			return nil
		}},
		{"keystore", text(func(c *Config) *string { return &c.Listen.Keystore })},
		{"keystore_pass", text(func(c *Config) *string { return &c.Listen.KeystorePass })},
		{"keystore_type", text(func(c *Config) *string { return &c.Listen.KeystoreType })},
		{"certificate_file", text(func(c *Config) *string { return &c.Listen.CertificateFile })},
		{"private_key_file", text(func(c *Config) *string { return &c.Listen.PrivateKeyFile })},
		{"max_request_size", size(func(c *Config) *int64 { return &c.Listen.MaxRequest })},
		{"cors_allowed_origin", text(func(c *Config) *string { return &c.Listen.CORSOrigin })},
		{"cors_allowed_methods", text(func(c *Config) *string { return &c.Listen.CORSMethods })},
		{"cors_allowed_headers", text(func(c *Config) *string { return &c.Listen.CORSHeaders })},
		{"disable_token_authorization", boolean(func(c *Config) *bool { return &c.Listen.TokensDisabled })},
		{"token_expiration_min", span(time.Minute, func(c *Config) *time.Duration { return &c.Listen.TokenLife })},
		{"enable_model_api", boolean(func(c *Config) *bool { return &c.Listen.ModelAPI })},
		{"enable_metrics_api", boolean(func(c *Config) *bool { return &c.Listen.MetricsAPI })},
		{"metrics_mode", text(func(c *Config) *string { return &c.Listen.MetricsMode })},
		{"model_metrics_auto_detect", boolean(func(c *Config) *bool { return &c.Listen.MetricsDetect })},
		{"metric_time_interval", span(time.Second, func(c *Config) *time.Duration { return &c.Listen.MetricsEvery })},
		{"ts_header_key_sequence_id", text(func(c *Config) *string { return &c.Listen.SequenceIDHeader })},
	}
}

// ignoredKeys have a meaning in TorchServe that is about its JVM, its plugins or
// software that tategu does not start.
func ignoredKeys() []string {
	return []string{
		"number_of_netty_threads", "netty_client_threads", "use_native_io", "io_ratio", "prefer_direct_buffer", "vmargs", "async_logging",
		"ipex_enable", "ipex_gpu_enable", "cpu_launcher_enable", "cpu_launcher_args", "cpp_log_config", "model_server_home",
		"system_metrics_cmd", "plugins_path", "initial_worker_port", "snapshot_store", "version", "tsConfigFile",
		"initial_distribution_port", "ts_header_key_sequence_start", "ts_header_key_sequence_end", "debug",
	}
}
