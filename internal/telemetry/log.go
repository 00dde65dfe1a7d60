// Package telemetry sets up the logger and the metrics registry. It decides how
// records look, not what is worth recording.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// LogFormat is how log records are written.
type LogFormat string

// The log formats: text for people, JSON for collectors.
const (
	Text LogFormat = "text"
	JSON LogFormat = "json"
)

// NewLogger writes records of at least level ("debug", "info", "warn", "error").
func NewLogger(w io.Writer, format LogFormat, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: least}
	switch format {
	case Text:
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case JSON:
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("log format %q: want text or json", format)
	}
}
