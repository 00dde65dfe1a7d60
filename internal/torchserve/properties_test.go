package torchserve_test

import (
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
