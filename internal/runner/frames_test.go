package runner

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"tategu/internal/replica/frame"
	"tategu/internal/replica/http1"
)

// TestFrames: what is asked in frames is answered as by HTTP, errors too, and what was
// asked when the end came is answered first.
func TestFrames(t *testing.T) {
	t.Parallel()
	engine := newFake()
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	var slow sync.Once
	ctx, end := context.WithCancel(t.Context())
	defer end()
	s := New(Config{
		Load: func(int) (Engine, error) { return engine, nil }, Log: slog.New(slog.DiscardHandler), Version: "1", Names: []string{"m"},
		Health: "/health", Predict: "/predict", Cores: 1, Batch: 8, Body: 200,
	})
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	address := l.Addr().String()
	plain := &http1.Client{}
	framed := &frame.Client{HTTP: &http1.Client{}, Route: "/predict"}
	ask := func(c interface {
		Do(ctx context.Context, address string, r *http1.Request) (*http1.Response, error)
	}, body string,
	) string {
		resp, err := c.Do(t.Context(), address, &http1.Request{Method: http.MethodPost, Path: "/predict", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)})
		if err != nil {
			return err.Error()
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		if err := resp.Body.Close(); err != nil {
			return err.Error()
		}
		return strconv.Itoa(resp.Status) + " " + resp.Header.Get("Content-Type") + " " + string(text)
	}
	for s.loaded.Load() == nil {
		ask(framed, "{}")
	}
	for body, want := range map[string]string{
		`{"instances": [[1, 2], [3, 4]]}`:                    `200 application/json {"predictions":[[2,4],[6,8]]}`,
		`{"instances": [[1]]}`:                               "",
		`{"instances": [[-1, 2]]}`:                           "",
		`nonsense`:                                           "",
		`{"instances": [` + string(make([]byte, 300)) + `]}`: "",
	} {
		one, other := ask(framed, body), ask(plain, body)
		if want == "" {
			want = other
		}
		if one != want || one != other {
			t.Errorf("%.40q: in frames %q, by HTTP %q", body, one, other)
		}
	}
	if n := ask(framed, `{"instances": [`+string(make([]byte, 300))+`]}`); n[:3] != "413" {
		t.Errorf("a request that is too large: %s", n)
	}
	engine.before = func() {
		slow.Do(func() {
			held <- struct{}{}
			<-hold
		})
	}
	last := make(chan string, 1)
	go func() { last <- ask(framed, `{"instances": [[5, 6]]}`) }()
	<-held
	end()
	close(hold)
	if got := <-last; got != `200 application/json {"predictions":[[10,12]]}` {
		t.Errorf("asked before the end: %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	framed.CloseIdle("")
	framed.HTTP.CloseIdle("")
	plain.CloseIdle("")
}
