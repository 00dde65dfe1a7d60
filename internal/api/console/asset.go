package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"time"

	"github.com/a-h/templ"

	"tategu/internal/resource"
)

//go:embed asset
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

// render writes a page once all of it is made: a half is of no use.
func (c *Console) render(w http.ResponseWriter, r *http.Request, page templ.Component) error {
	var b bytes.Buffer
	if err := page.Render(r.Context(), &b); err != nil {
		return fmt.Errorf("page %s: %w", r.URL.Path, err)
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
