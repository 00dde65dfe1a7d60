package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
)

//go:embed template asset
var files embed.FS

// policy is what pages may load and run: files of this server alone, no script and
// no style in the page itself.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// assets are the files beside the pages. Their address changes with them, so that a
// browser may keep them for good.
type assets struct {
	version string
	content map[string][]byte
}

func readAssets() (assets, error) {
	a := assets{content: map[string][]byte{}}
	sum := sha256.New()
	names, err := fs.Glob(files, "asset/*")
	if err != nil {
		return a, err
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return a, err
		}
		a.content[path.Base(name)] = text
		_, _ = sum.Write(text) // never fails
	}
	a.version = hex.EncodeToString(sum.Sum(nil)[:6])
	return a, nil
}

// asset answers a file beside the pages; it tells nothing of anybody's work.
func (c *Console) asset(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	text, ok := c.assets.content[name]
	if !ok {
		return resource.NotFound(r.URL.Path)
	}
	w.Header().Set("Cache-Control", "no-cache")
	if r.PathValue("version") == c.assets.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
	return nil
}

// frame is what is around every page.
type frame struct {
	Title   string
	Version string // of the server
	Assets  string // directory of the files beside the pages
}

func (c *Console) frame(title string) frame {
	return frame{Title: title, Version: c.version, Assets: "/console/assets/" + c.assets.version}
}

func parseTemplates() (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"short": shortTime, "took": took, "iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"number": amount, "code": code, "pill": func(phase, label string) map[string]string { return map[string]string{"Phase": phase, "Label": label} },
		"add": func(a, b float64) float64 { return a + b }, "percent": func(f float64) string { return fmt.Sprintf("%.2f%%", f) },
	}).ParseFS(files, "template/*.html")
}

// code sets what is between backquotes as code.
func code(text string) template.HTML {
	var b strings.Builder
	for i, s := range strings.Split(text, "`") {
		s = template.HTMLEscapeString(s)
		if i%2 == 1 {
			s = "<code>" + s + "</code>"
		}
		b.WriteString(s)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped piece by piece
}

// render writes a page once all of it is made: a half is of no use.
func (c *Console) render(w http.ResponseWriter, name string, data any) error {
	var b bytes.Buffer
	if err := c.pages.ExecuteTemplate(&b, name, data); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, err := w.Write(b.Bytes())
	return ignoreGone(err)
}

func writeJSON(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(text)
	return ignoreGone(err)
}

// ignoreGone drops the error of an answer whose reader is gone.
func ignoreGone(err error) error {
	if err == nil || errors.Is(err, http.ErrHandlerTimeout) {
		return err
	}
	return nil
}
