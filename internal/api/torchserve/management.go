package torchserve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	engine "tategu/internal/torchserve"
)

// management answers /models and KServe's question whether a model is ready.
func (a *API) management(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	switch {
	case at(s, 1) == "v1" && at(s, 2) == "models" && len(s) == 4:
		if r.Method != http.MethodGet {
			return true, notAllowed()
		}
		name, _, _ := strings.Cut(s[3], ":")
		m, err := a.one(r, name, "")
		if err != nil {
			return true, err
		}
		sendJSON(w, http.StatusOK, struct {
			Name  string `json:"name"`
			Ready bool   `json:"ready"`
		}{name, len(m.Workers) > 0})
		return true, nil
	case at(s, 1) != "models":
		return false, nil
	}
	switch len(s) {
	case 2:
		return true, a.models(w, r)
	case 3, 4:
		return true, a.model(w, r, s[2], at(s, 3))
	case 5:
		if s[4] != "set-default" {
			return false, nil
		}
		if r.Method != http.MethodPut {
			return true, notAllowed()
		}
		if err := a.Engine.SetDefault(r.Context(), s[2], s[3]); err != nil {
			return true, err
		}
		sendStatus(w, http.StatusOK, "Default version successfully updated for model \"%s\" to \"%s\"", s[2], s[3])
		return true, nil
	}
	return false, nil
}

// models lists and registers.
func (a *API) models(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodGet:
		q := r.URL.Query()
		sendJSON(w, http.StatusOK, a.list(number(q.Get("limit"), pageSize), number(q.Get("next_page_token"), 0)))
		return nil
	case http.MethodPost:
		if !a.cfg.ModelAPI {
			return notAllowed()
		}
		ask, err := registration(r, a.cfg.MaxRequest)
		if err != nil {
			return err
		}
		code, status, err := a.register(r.Context(), ask)
		if err != nil {
			return err
		}
		sendStatus(w, code, "%s", status)
		return nil
	}
	return notAllowed()
}

// model describes, scales and removes one.
func (a *API) model(w http.ResponseWriter, r *http.Request, name, version string) error {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodGet:
		ds, err := a.describe(r.Context(), name, version, strings.EqualFold(q.Get("customized"), "true"))
		if err != nil {
			return err
		}
		sendJSON(w, http.StatusOK, ds)
	case http.MethodPut:
		if version == "" {
			version = q.Get("model_version")
		}
		least := number(q.Get("min_worker"), 1)
		code, status, err := a.scale(r.Context(), name, version, least, number(q.Get("max_worker"), least), strings.EqualFold(q.Get("synchronous"), "true"))
		if err != nil {
			return err
		}
		sendStatus(w, code, "%s", status)
	case http.MethodDelete:
		if !a.cfg.ModelAPI {
			return notAllowed()
		}
		if err := a.Engine.Unregister(r.Context(), name, version); err != nil {
			return err
		}
		sendStatus(w, http.StatusOK, "%s", unregistered(name))
	case http.MethodOptions:
		if _, err := a.one(r, name, version); err != nil {
			return err
		}
		sendJSON(w, http.StatusOK, managementOf(name))
	default:
		return notAllowed()
	}
	return nil
}

func unregistered(name string) string { return "Model \"" + name + "\" unregistered" }

const pageSize = 100

// listing is a page of models.
type listing struct {
	Next   string        `json:"nextPageToken,omitempty"`
	Models []listedModel `json:"models"`
}

type listedModel struct {
	Name string `json:"modelName"`
	URL  string `json:"modelUrl"`
}

func (a *API) list(limit, from int) listing {
	ms := a.Engine.Models()
	slices.SortFunc(ms, func(x, y engine.Model) int { return strings.Compare(x.Name, y.Name) })
	from, to, next := page(limit, from, len(ms))
	out := listing{Next: next, Models: []listedModel{}}
	for i := from; i < to; i++ {
		out.Models = append(out.Models, listedModel{ms[i].Name, ms[i].URL})
	}
	return out
}

// page is what a list shows, and the token of the next page.
func page(limit, from, n int) (int, int, string) {
	if limit > pageSize || limit < 0 {
		limit = pageSize
	}
	from = max(from, 0)
	next, to := "", from+min(limit, n) // no overflow: both are small, or from is beyond n
	if to < from || from > n {
		return n, n, ""
	}
	if to = from + limit; to > n {
		to = n
	} else {
		next = strconv.Itoa(to)
	}
	return from, to, next
}

// ask is a registration as it was sent: parameters by name.
type ask func(name string) (string, bool)

// registration reads one from the URL or, of the type application/json, from the body.
func registration(r *http.Request, limit int64) (ask, error) {
	if mimeType(r) != "application/json" {
		q := r.URL.Query()
		return func(name string) (string, bool) { v, ok := q[name]; return param(url.Values{name: v}, name, ""), ok }, nil
	}
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	if err != nil {
		return nil, unread(err)
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(text, &body); err != nil || body == nil {
		if err == nil {
			err = errors.New("it is null")
		}
		return nil, badRequest("The body is no JSON object: %v", err)
	}
	return func(name string) (string, bool) {
		raw, ok := body[name]
		if !ok || string(raw) == "null" {
			return "", false
		}
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s, true
		}
		return string(raw), true
	}, nil
}

// plainWeb refuses s3_sse_kms of web addresses, of models and of workflows.
func plainWeb(get ask, url string) error {
	if kms, _ := get("s3_sse_kms"); strings.EqualFold(kms, "true") && (strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://")) {
		return badRequest("s3_sse_kms is not supported for %s: write s3://BUCKET/NAME, which is read with the environment's credentials, encrypted objects too", url)
	}
	return nil
}

// register takes a model and tells what became of it.
func (a *API) register(ctx context.Context, get ask) (code int, status string, err error) {
	r, err := readRegistration(get)
	if err != nil {
		return 0, "", err
	}
	if err := plainWeb(get, r.URL); err != nil {
		return 0, "", err
	}
	if name, ok := a.stored(r.URL); ok {
		return 0, "", failure(http.StatusInternalServerError, engine.InternalServer, "Model file already exists %s", name)
	}
	done, err := a.Engine.Register(ctx, r)
	switch {
	case err != nil:
		return 0, "", err
	case done.Workers <= 0:
		return http.StatusOK, "Model \"" + done.Model + "\" Version: " + done.Version + " registered with 0 initial workers. Use scale workers API to add workers for the model.", nil
	case !r.Synchronous:
		return http.StatusAccepted, scaling, nil
	}
	return http.StatusOK, "Model \"" + done.Model + "\" Version: " + done.Version + " registered with " + strconv.Itoa(done.Workers) + " initial workers", nil
}

// stored says whether a URL's archive has the name of one in the model store, into
// which TorchServe would download it.
func (a *API) stored(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || a.Store == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false
	}
	name := path.Base(u.Path)
	if !filepath.IsLocal(name) || name == "." {
		return "", false
	}
	_, err = os.Stat(filepath.Join(a.Store, name))
	return name, err == nil
}

const scaling = "Processing worker updates..."

func readRegistration(get ask) (engine.Registration, error) {
	text := func(name string) string { s, _ := get(name); return s }
	r := engine.Registration{
		ModelName: text("model_name"), Runtime: text("runtime"), Handler: text("handler"), BatchSize: max(number(text("batch_size"), 0), 0),
		ResponseTimeout: seconds(text("response_timeout")), StartupTimeout: seconds(text("startup_timeout")),
	}
	var ok bool
	if r.URL, ok = get("url"); !ok {
		return r, badRequest("Parameter url is required.")
	}
	if r.Runtime != "" && !slices.Contains([]string{"python", "python2", "python3", "LSP"}, r.Runtime) {
		return r, badRequest("Invalid RuntimeType value: %s", r.Runtime)
	}
	if ms := number(text("max_batch_delay"), -1); ms >= 0 {
		d := time.Duration(ms) * time.Millisecond
		r.MaxBatchDelay = &d
	}
	if n, err := strconv.ParseInt(text("initial_workers"), 10, 32); err == nil {
		workers := max(int(n), 0)
		r.InitialWorkers = &workers
	}
	// One that is not said is waited for.
	sync, said := get("synchronous")
	r.Synchronous = !said || strings.EqualFold(sync, "true")
	return r, nil
}

// seconds is a time-out, nil where it is not said, negative or no number.
func seconds(s string) *time.Duration {
	n := number(s, -1)
	if n < 0 {
		return nil
	}
	d := time.Duration(n) * time.Second
	return &d
}

// number is a parameter that is a whole number, def where it is none.
func number(s string, def int) int {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return def
	}
	return int(n)
}

// scale changes workers and tells what became of it.
func (a *API) scale(ctx context.Context, name, version string, least, most int, wait bool) (code int, status string, err error) {
	switch {
	case most < least:
		return 0, "", badRequest("max_worker cannot be less than min_worker.")
	case least < 0:
		// TorchServe has no check here; its clients see what an index out of bounds makes.
		return 0, "", failure(http.StatusInternalServerError, "IndexOutOfBoundsException", "min_worker is %d: want 0 or more", least)
	}
	if err := a.Engine.Scale(ctx, engine.Scaling{Model: name, Version: version, MinWorkers: &least, MaxWorkers: &most, Synchronous: wait}); err != nil {
		return 0, "", err
	}
	if !wait {
		return http.StatusAccepted, scaling, nil
	}
	status = "Workers scaled to " + strconv.Itoa(least) + " for model: " + name
	if version != "" {
		status += ", version: " + version
	}
	return http.StatusOK, status, nil
}

// versions of a model, in their order.
func (a *API) versions(ctx context.Context, name string) ([]string, error) {
	ms, err := a.Engine.Describe(ctx, name, "all", false)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, m := range ms {
		out = append(out, m.Version)
	}
	return out, nil
}
