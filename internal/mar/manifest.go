package mar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// fileLimit bounds manifests and configurations: they are read into memory.
const fileLimit = 1 << 20

// word is a JSON string; archives made by hand write versions as numbers.
type word string

func (w *word) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err == nil {
		*w = word(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("want a string, not %.40s", data)
	}
	*w = word(n.String())
	return nil
}

// manifestFile is the JSON. Manifests before archiver 0.2 name the handler's parts
// and the description beside the model, and a version of the whole specification.
type manifestFile struct {
	CreatedOn       word `json:"createdOn"`
	Description     word `json:"description"`
	ArchiverVersion word `json:"archiverVersion"`
	Specification   word `json:"specificationVersion"`
	Runtime         word `json:"runtime"`
	Model           *struct {
		Name         word `json:"modelName"`
		Version      word `json:"modelVersion"`
		OldVersion   word `json:"version"`
		Description  word `json:"description"`
		Handler      word `json:"handler"`
		Envelope     word `json:"envelope"`
		ModelFile    word `json:"modelFile"`
		Serialized   word `json:"serializedFile"`
		Requirements word `json:"requirementsFile"`
		Config       word `json:"configFile"`
	} `json:"model"`
	Workflow *struct {
		Name    word `json:"workflowName"`
		Spec    word `json:"specFile"`
		Handler word `json:"handler"`
	} `json:"workflow"`
}

// ParseManifest reads a MANIFEST.json of a model.
func ParseManifest(data []byte) (Manifest, error) {
	var f manifestFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Manifest{}, fmt.Errorf("MANIFEST.json is not what it should be: %w", err)
	}
	if f.Model == nil {
		return Manifest{}, errors.New("Missing Model entry in manifest file.") //nolint:staticcheck // TorchServe's words
	}
	m := f.Model
	if m.Version == "" {
		m.Version = m.OldVersion
	}
	out := Manifest{
		CreatedOn: string(f.CreatedOn), Description: string(f.Description), ArchiverVersion: string(f.ArchiverVersion), Runtime: string(f.Runtime),
		Model: Model{
			Name: string(m.Name), Version: string(m.Version), Description: string(m.Description), Handler: string(m.Handler), Envelope: string(m.Envelope),
			ModelFile: string(m.ModelFile), SerializedFile: string(m.Serialized), RequirementsFile: string(m.Requirements), ConfigFile: string(m.Config),
		},
	}
	if out.ArchiverVersion == "" {
		out.ArchiverVersion = string(f.Specification)
	}
	if out.Runtime == "" {
		out.Runtime = "python"
	}
	return out, out.check()
}

// check refuses what could lead a reader of the archive out of it, or a route astray.
func (m Manifest) check() error {
	if m.Model.Name == "" {
		return errors.New("Model name is not defined.") //nolint:staticcheck // TorchServe's words
	}
	if !strings.EqualFold(m.Runtime, "python") && !strings.EqualFold(m.Runtime, "python3") {
		return fmt.Errorf("the runtime %q is not supported: workers are Python's", m.Runtime)
	}
	if err := CheckName(m.Model.Name); err != nil {
		return fmt.Errorf("modelName: %w", err)
	}
	if m.Model.Version != "" {
		if err := CheckName(m.Model.Version); err != nil {
			return fmt.Errorf("modelVersion: %w", err)
		}
	}
	for what, name := range map[string]string{
		"modelFile": m.Model.ModelFile, "serializedFile": m.Model.SerializedFile, "requirementsFile": m.Model.RequirementsFile, "configFile": m.Model.ConfigFile,
	} {
		if name == "" {
			continue
		}
		if err := checkPath(name); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// CheckName refuses names of models, versions and workflows that cannot stand in a
// route or a file's name.
func CheckName(s string) error {
	switch {
	case s == "" || s == "." || s == "..":
		return fmt.Errorf("%q is no name", s)
	case len(s) > 200:
		return fmt.Errorf("a name of %d bytes is too long (at most 200)", len(s))
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`/\?#%`, r) {
			return fmt.Errorf("%s has a character that no name may have", strconv.QuoteToASCII(s))
		}
	}
	return nil
}

// readSmall gives a file below dir that does not lead out of it.
func readSmall(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read
	info, err := root.Stat(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", name)
	}
	if info.Size() > fileLimit {
		return nil, fmt.Errorf("%s has %d bytes, which is too much (at most %d)", name, info.Size(), fileLimit)
	}
	return fs.ReadFile(root.FS(), name)
}
