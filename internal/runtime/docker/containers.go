package docker

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// creation is the body of /containers/create, as far as it is used here.
type creation struct {
	Image      string
	Entrypoint []string
	Cmd        []string // never nil: the image's would be put in
	Env        []string
	Hostname   string
	Labels     map[string]string
	HostConfig hostConfig
}

type hostConfig struct {
	Binds          []string // FROM:TO[:OPTIONS]
	NetworkMode    string
	Init           bool
	LogConfig      logConfig
	CapDrop        []string
	CapAdd         []string
	SecurityOpt    []string
	PidsLimit      int64 `json:",omitempty"`
	Memory         int64 `json:",omitempty"` // bytes
	MemorySwap     int64 `json:",omitempty"` // bytes of memory and swap
	NanoCPUs       int64 `json:"NanoCpus,omitempty"`
	CPUShares      int64 `json:"CpuShares,omitempty"` // 1024 is everybody's
	Devices        []device
	DeviceRequests []deviceRequest
}

type device struct{ PathOnHost, PathInContainer, CgroupPermissions string }

type logConfig struct {
	Type   string
	Config map[string]string
}

type deviceRequest struct {
	DeviceIDs    []string
	Capabilities [][]string
}

// container is what /containers/ID/json says.
type container struct {
	ID     string `json:"Id"`
	State  containerState
	Config struct{ Labels map[string]string }
}

type containerState struct {
	Status     string // created, running, paused, restarting, removing, exited, dead
	Running    bool
	Pid        int
	ExitCode   int
	OOMKilled  bool
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
}

func (c *client) create(ctx context.Context, name string, body creation) (id string, err error) {
	var out struct {
		ID string `json:"Id"`
	}
	err = c.call(ctx, http.MethodPost, "/containers/create", url.Values{"name": {name}}, body, &out)
	return out.ID, err
}

// start starts a container; one that was started is left as it is.
func (c *client) start(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, "/containers/"+id+"/start", nil, nil, nil)
}

func (c *client) inspect(ctx context.Context, id string) (out container, err error) {
	err = c.call(ctx, http.MethodGet, "/containers/"+id+"/json", nil, nil, &out)
	return out, err
}

// wait returns when the container does not run.
func (c *client) wait(ctx context.Context, id string) error {
	return c.callLong(ctx, http.MethodPost, "/containers/"+id+"/wait", url.Values{"condition": {"not-running"}}, nil, nil)
}

func (c *client) kill(ctx context.Context, id, signal string) error {
	return c.call(ctx, http.MethodPost, "/containers/"+id+"/kill", url.Values{"signal": {signal}}, nil, nil)
}

// remove ends and removes a container; one that is gone is fine.
func (c *client) remove(ctx context.Context, id string) error {
	err := c.call(ctx, http.MethodDelete, "/containers/"+id, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
	if status(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// listed is a line of /containers/json.
type listed struct {
	ID     string `json:"Id"`
	Labels map[string]string
}

func (c *client) list(ctx context.Context, label string) (out []listed, err error) {
	filter, err := json.Marshal(map[string][]string{"label": {label}})
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filter)}}, nil, &out)
	return out, err
}

// logs gives the whole output of a container from its first byte, stdout and
// stderr in the order in which the engine read them; with follow until its end.
func (c *client) logs(ctx context.Context, id string, follow bool) (io.ReadCloser, error) {
	query := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	if follow {
		query.Set("follow", "1")
	}
	body, err := c.open(ctx, http.MethodGet, "/containers/"+id+"/logs", query, nil)
	if err != nil {
		return nil, err
	}
	return &frames{from: body}, nil
}

// frames reads what a stream of frames carries: a frame is the number of a
// stream, three zeros, the length in big endian, and as many bytes.
type frames struct {
	from io.ReadCloser
	left uint32
}

const (
	frameHead  = 8
	streamMax  = 2 // stdin, stdout, stderr
	systemErrs = 3 // what went wrong with the engine's log
)

func (f *frames) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.left == 0 {
		var head [frameHead]byte
		if _, err := io.ReadFull(f.from, head[:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the container engine's log ends within a frame")
			}
			return 0, err
		}
		f.left = binary.BigEndian.Uint32(head[4:])
		switch kind := head[0]; {
		case kind == systemErrs:
			said, err := io.ReadAll(io.LimitReader(f.from, int64(min(f.left, 4096))))
			return 0, errors.Join(fmt.Errorf("the container engine's log: %s", said), err)
		case kind > streamMax || head[1]|head[2]|head[3] != 0:
			return 0, fmt.Errorf("the container engine's log: not a frame: %x", head)
		}
	}
	n, err := f.from.Read(p[:min(len(p), int(f.left))])
	f.left -= uint32(n)
	if errors.Is(err, io.EOF) && f.left > 0 {
		err = errors.New("the container engine's log ends within a frame")
	}
	return n, err
}

func (f *frames) Close() error { return f.from.Close() }
