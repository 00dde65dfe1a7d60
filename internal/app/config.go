package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tategu/internal/blob/bucket"
	"tategu/internal/event"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/inventory"
)

// Config is what a server is started with. Flags win over TATEGU_* variables,
// these over tategu.yaml, that over the defaults; Load does the last two.
type Config struct {
	Listen   string              `yaml:"listen"`   // address of the one port
	Data     string              `yaml:"data"`     // directory of everything that must be kept
	Cache    string              `yaml:"cache"`    // environments and downloads: safe to delete
	Project  string              `yaml:"project"`  // project of `tategu env`
	Location string              `yaml:"location"` // location of `tategu env`
	Public   string              `yaml:"public"`   // host:port told to clients; default: the bound address
	Hosts    []string            `yaml:"hosts"`    // further names and addresses in our certificate
	TLS      TLS                 `yaml:"tls"`
	Tunnel   bool                `yaml:"tunnel"` // the proxy passes other hosts through (default true)
	UV       string              `yaml:"uv"`     // path of uv; default: found or installed into the cache
	Images   []runtime.ImageRule `yaml:"images"`
	Buckets  []string            `yaml:"buckets"` // made at start, in Project
	Storage  Storage             `yaml:"storage"`
	LogLevel string              `yaml:"logLevel"`
	LogJSON  bool                `yaml:"logJson"`
	Limits   Limits              `yaml:"limits"`
	// Resources is what workloads share; what is not declared is found.
	Resources inventory.Declared `yaml:"resources"`
	Registry  Registry           `yaml:"registry"`
	Runtime   Runtime            `yaml:"runtime"`
	// Secrets is a directory of PROJECT/NAME/KEY files; "" = there are no secrets.
	Secrets string  `yaml:"secrets"`
	Python  Python  `yaml:"python"`
	Serving Serving `yaml:"serving"`
	ONNX    ONNX    `yaml:"onnx"`
	Vectors Vectors `yaml:"vectors"`
	// TorchServe is about archives on endpoints.
	TorchServe TorchModels `yaml:"torchserve"`
	// Webhooks are told of batch prediction jobs that ended.
	Webhooks []event.Webhook `yaml:"webhooks"`
	// Warehouses are databases into which results of batch prediction may go, by name.
	Warehouses map[string]Warehouse `yaml:"warehouses"`
}

// Python is how Python components are started.
type Python struct {
	// Zygote keeps a process for each environment that has loaded what components
	// import and forks them (default true).
	Zygote bool `yaml:"zygote"`
	// Idle is how long such a process stays after its last program, where no deployed
	// model needs it; 0 = 10 minutes.
	Idle time.Duration `yaml:"idle"`
}

// zygotes is where they have their directories; "" = there are none.
func (c Config) zygotes() string {
	if !c.Python.Zygote {
		return ""
	}
	return filepath.Join(c.Data, "zygotes")
}

// Registry is the policy for container images that are kept here.
type Registry struct {
	// Untagged is how old a manifest without a tag may become; 0 = it stays.
	Untagged time.Duration `yaml:"untagged"`
	// Packed is how long what `tategu run` packed is kept after its last start; 0 = for good.
	Packed time.Duration `yaml:"packed"`
}

// Runtime says who runs containers.
type Runtime struct {
	// Containers is namespaces, docker (or Podman), or auto: namespaces where they
	// work, else a container engine whose socket is there.
	Containers string `yaml:"containers"`
	Socket     string `yaml:"socket"` // path of the engine's unix socket; "" = where engines put it
	// Pull is missing or never: whether the engine pulls images that nobody has.
	Pull string `yaml:"pull"`
}

// TLS names a certificate to serve instead of one by our local CA.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Limits bound what a client may ask for.
type Limits struct {
	BodyBytes int64         `yaml:"bodyBytes"` // of an API request (objects are not bounded)
	Predict   time.Duration `yaml:"predict"`   // longest prediction

	ImageBytes int64 `yaml:"imageBytes"` // unpacked images that nothing uses are removed beyond this; 0 = 20 GiB
	Processes  int   `yaml:"processes"`  // of one container, threads count; 0 = 4096
}

// Defaults gives the configuration of a laptop.
func Defaults() Config {
	return Config{
		Listen: "127.0.0.1:8090", Data: xdg("XDG_DATA_HOME", ".local/share"), Cache: xdg("XDG_CACHE_HOME", ".cache"),
		Project: "tategu", Location: "us-central1", Tunnel: true, LogLevel: "info",
		Limits:   Limits{BodyBytes: 64 << 20, Predict: time.Minute},
		Registry: Registry{Packed: 14 * 24 * time.Hour},
		Runtime:  Runtime{Containers: containersAuto, Pull: pullMissing},
		Python:   Python{Zygote: true},
	}
}

func xdg(env, fallback string) string {
	if dir := os.Getenv(env); dir != "" {
		return filepath.Join(dir, "tategu")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, fallback, "tategu")
}

// Load reads tategu.yaml over the defaults. An empty path means ./tategu.yaml
// when it exists; a named file must exist.
func Load(path string) (Config, error) {
	c := Defaults()
	named := path != ""
	if !named {
		path = "tategu.yaml"
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		return c, resource.Invalid(path, "configuration %s: %v", path, err).WithHint("docs/guide/configuration.md lists the keys")
	}
	return c, nil
}

// Validate finds what would fail later and says how to mend it.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return resource.Invalid("listen", "listen address %q: %v", c.Listen, err).WithHint("write HOST:PORT, such as 127.0.0.1:8090")
	}
	if c.Storage.Objects != "" {
		if _, _, err := bucket.Parse(c.Storage.Objects); err != nil {
			return err
		}
	}
	if err := c.Resources.Validate(); err != nil {
		return err
	}
	if err := c.Runtime.validate(); err != nil {
		return err
	}
	if c.Python.Idle < 0 {
		return resource.Invalid("python.idle", "python.idle is %v", c.Python.Idle).WithHint("write a duration such as 10m, or python.zygote: false")
	}
	if err := c.Serving.validate(); err != nil {
		return err
	}
	if err := c.ONNX.validate(); err != nil {
		return err
	}
	if err := c.Vectors.validate(); err != nil {
		return err
	}
	if err := c.TorchServe.validate(); err != nil {
		return err
	}
	for name, w := range c.Warehouses {
		if err := w.validate(name); err != nil {
			return err
		}
	}
	if err := validateWebhooks(c.Webhooks); err != nil {
		return err
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return resource.Invalid("tls", "tls.cert and tls.key go together")
	}
	if c.Public != "" {
		if _, _, err := net.SplitHostPort(c.Public); err != nil {
			return resource.Invalid("public", "public address %q: %v", c.Public, err).WithHint("write HOST:PORT as clients reach it")
		}
	}
	for name, age := range map[string]time.Duration{"untagged": c.Registry.Untagged, "packed": c.Registry.Packed} {
		if age != 0 && age < time.Hour {
			return resource.Invalid("registry."+name, "registry.%s is %v: a push in progress needs an hour", name, age).
				WithHint("write at least 1h, or 0 to keep manifests without a tag")
		}
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && c.Public == "" && (ip == nil || ip.IsUnspecified()) {
		return resource.Invalid("public", "listening on %q needs the address that clients use", c.Listen).WithHint("set --public HOST:PORT")
	}
	return nil
}

// absolute makes the paths independent of the working directory.
func (c *Config) absolute() error {
	for _, p := range []*string{&c.Data, &c.Cache} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

// Override applies one TATEGU_* variable; the name is the flag's.
func (c *Config) Override(name, value string) error {
	switch name {
	case "listen":
		c.Listen = value
	case "data":
		c.Data = value
	case "cache":
		c.Cache = value
	case "project":
		c.Project = value
	case "location":
		c.Location = value
	case "public":
		c.Public = value
	case "hosts":
		c.Hosts = strings.Split(value, ",")
	case "objects":
		c.Storage.Objects = value
	case "uv":
		c.UV = value
	case "tls-cert":
		c.TLS.Cert = value
	case "tls-key":
		c.TLS.Key = value
	case "match-listen":
		c.Vectors.Match = value
	case "log-level":
		c.LogLevel = value
	default:
		return resource.Invalid(name, "unknown setting %q", name)
	}
	return nil
}
