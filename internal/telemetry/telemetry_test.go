package telemetry_test

import (
	"bytes"
	"strings"
	"testing"

	"tategu/internal/telemetry"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format        telemetry.LogFormat
		level         string
		want, wantErr string
	}{
		{telemetry.Text, "info", `msg=hello`, ""},
		{telemetry.JSON, "debug", `"msg":"hello"`, ""},
		{telemetry.Text, "error", "", ""},
		{telemetry.Text, "loud", "", "log level"},
		{"xml", "info", "", "log format"},
	} {
		t.Run(string(tt.format)+" "+tt.level, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := telemetry.NewLogger(&out, tt.format, tt.level)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error = %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			log.InfoContext(t.Context(), "hello")
			if got := out.String(); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("output = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRegistryNamesTheBuild(t *testing.T) {
	t.Parallel()
	families, err := telemetry.NewRegistry("1.2.3").Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tategu_build_info" {
			continue
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if l.GetName() == "version" && l.GetValue() == "1.2.3" {
				return
			}
		}
	}
	t.Error("no tategu_build_info with the version")
}
