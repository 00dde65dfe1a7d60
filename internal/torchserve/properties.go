package torchserve

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Defaults is the configuration of a server that is told nothing.
func Defaults() Config {
	return Config{
		Python: "python3", AllowedURLs: []string{"file://.*", "http(s)?://.*", "gs://.*", "s3://.*"},
		ResponseTimeout: 120 * time.Second, StartupTimeout: 120 * time.Second, UnregisterTime: 120 * time.Second,
		JobQueueSize: 100, GPUs: -1, LimitPixels: true, DecodeRequests: true, MaxResponse: 6553500, Zygote: true, Shortcuts: true,
		Listen: Listen{
			Inference: "http://127.0.0.1:8080", Management: "http://127.0.0.1:8081", MetricsAddress: "http://127.0.0.1:8082",
			GRPCInference: "127.0.0.1", GRPCManagement: "127.0.0.1", GRPCInferencePort: 7070, GRPCManagementPort: 7071,
			KeystorePass: "changeit", KeystoreType: "PKCS12", MaxRequest: 6553500, TokenLife: time.Hour,
			MetricsAPI: true, MetricsMode: "log", MetricsEvery: time.Minute,
			SequenceIDHeader: "ts_request_sequence_id",
		},
	}
}

// ReadProperties reads config.properties over c. env gives environment variables:
// those that values name as $$NAME$$, and with enable_envvars_config=true those that
// are called TS_ and the key in capitals, which then go before the file.
func ReadProperties(c Config, data []byte, env func(string) (string, bool)) (Config, error) {
	props, err := parseProperties(data)
	if err != nil {
		return c, err
	}
	for k, v := range props {
		if props[k], err = expand(v, env); err != nil {
			return c, fmt.Errorf("%s: %w", k, err)
		}
	}
	known := map[string]func(*Config, string) error{}
	for _, k := range keys() {
		known[k.name] = k.set
	}
	if props["enable_envvars_config"] == "true" {
		for _, name := range slices.Concat(slices.Collect(maps.Keys(known)), ignoredKeys(), []string{systemMetricsOff}) {
			for _, variable := range variablesOf(name) {
				if v, ok := env(variable); ok {
					props[name] = v
				}
			}
		}
	}
	c.Properties = maps.Clone(c.Properties)
	if c.Properties == nil {
		c.Properties = map[string]string{}
	}
	for _, k := range slices.Sorted(maps.Keys(props)) {
		c.Properties[k] = props[k]
		switch set := known[k]; {
		case set != nil:
			if err := set(&c, strings.TrimSpace(props[k])); err != nil {
				return c, fmt.Errorf("%s=%s: %w", k, props[k], err)
			}
		case k == "enable_envvars_config", k == "use_env_allowed_urls", k == systemMetricsOff:
		case slices.Contains(ignoredKeys(), k):
			c.Ignored = append(c.Ignored, k)
		default:
			c.Unknown = append(c.Unknown, k)
		}
	}
	if v, ok := env("TS_ALLOWED_URLS"); ok && props["use_env_allowed_urls"] == "true" {
		_ = list(func(c *Config) *[]string { return &c.AllowedURLs })(&c, v) // a list has no form to miss
	}
	if props[systemMetricsOff] == "true" {
		c.Listen.MetricsEvery = 0
	}
	return c, nil
}

// systemMetricsOff is the key that goes before metric_time_interval.
const systemMetricsOff = "disable_system_metrics"

// variablesOf names the variables of a key; the last one that is set counts.
func variablesOf(key string) []string {
	all := []string{"TS_" + strings.ToUpper(strings.TrimPrefix(key, "ts_"))}
	if key == "token_expiration_min" {
		all = append(all, "TS_TOKEN_EXPIRATION_TIME_MIN") // TorchServe's own
	}
	return all
}

// expand puts variables of the environment in the place of $$NAME$$.
func expand(v string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(v, "$$")
		if i < 0 {
			break
		}
		name, rest, ok := strings.Cut(v[i+2:], "$$")
		if !ok {
			break
		}
		value, ok := env(name)
		if !ok {
			return "", fmt.Errorf("the environment has no variable %s", name)
		}
		b.WriteString(v[:i])
		b.WriteString(value)
		v = rest
	}
	b.WriteString(v)
	return b.String(), nil
}

// parseProperties reads the format of java.util.Properties.
func parseProperties(data []byte) (map[string]string, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the configuration is not UTF-8")
	}
	props := map[string]string{}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), "\n")
	for i := 0; i < len(lines); i++ {
		at, line := i, strings.TrimLeft(lines[i], " \t\f")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for continues(line) {
			line = line[:len(line)-1]
			if i++; i >= len(lines) {
				break
			}
			line += strings.TrimLeft(lines[i], " \t\f")
		}
		end := keyEnd(line)
		name, err := unescape(line[:end])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at+1, err)
		}
		rest := strings.TrimLeft(line[end:], " \t\f")
		if rest != "" && (rest[0] == '=' || rest[0] == ':') {
			rest = strings.TrimLeft(rest[1:], " \t\f")
		}
		if props[name], err = unescape(rest); err != nil {
			return nil, fmt.Errorf("line %d: %w", at+1, err)
		}
	}
	return props, nil
}

// continues says that a line ends in an odd number of backslashes.
func continues(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

func keyEnd(line string) int {
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '=', ':', ' ', '\t', '\f':
			return i
		}
	}
	return len(line)
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			if s[i] != '\\' {
				b.WriteByte(s[i])
			}
			continue
		}
		i++
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			if i+4 >= len(s) {
				return "", errors.New(`\u needs four hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", errors.New(`\u needs four hexadecimal digits`)
			}
			b.WriteRune(rune(n))
			i += 4
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}
