package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/resource"
	"tategu/internal/transfer"
)

// push registers a version of a model from files.
type push struct {
	cmd    *cobra.Command
	models *models

	name    string // of the model; "" = that of the file or folder
	image   string
	to      string
	aliases []string
	env     map[string]string
}

func (p *push) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "display name of the model; one that is there gets a version more (default: that of the file or folder)")
	f.StringVar(&p.image, "image", "", "image that serves it: a prebuilt one, tategu/cpr, or your own (default: by what the files are)")
	f.StringVar(&p.to, "to", "", "gs://BUCKET/FOLDER for the files (default: gs://PROJECT-models/NAME/TIME)")
	f.StringSliceVar(&p.aliases, "alias", nil, "alias of the version, such as champion, which moves to it")
	f.StringToStringVar(&p.env, "env", nil, "NAME=VALUE of the model's program")
}

func modelPushCommand() *cobra.Command {
	p := &push{}
	cmd := &cobra.Command{
		Use: "push SOURCE", Short: "Register a version of a model from a file or folder", Args: cobra.ExactArgs(1),
		Long: `push copies a model's file or folder into a bucket and registers it: as a new model, or as the next
version of the one of that name. SOURCE may be a gs:// folder, which is left where it is.

What serves it is told by its files: LightGBM and XGBoost models, ONNX models, TorchServe's archives
and custom prediction routines (predictor.py) need no image; a pickle needs the prebuilt one of its
library's version.`,
		Example: "  tategu model push ./fraud                    # fraud/model.txt\n  tategu model push fraud.onnx --alias champion\n" +
			"  tategu model push ./churn --image us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := modelsOf(cmd)
			if err != nil {
				return err
			}
			p.cmd, p.models = cmd, m
			v, err := p.register(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s@%s\n", v.model(), v.VersionID)
			return err
		},
	}
	p.flags(cmd)
	return cmd
}

// register gives the version that it made.
func (p *push) register(source string) (modelView, error) {
	if p.name == "" {
		p.name = titleOf(source)
	}
	uri, err := p.artifact(source)
	if err != nil {
		return modelView{}, err
	}
	req := &pb.UploadModelRequest{Model: &pb.Model{DisplayName: p.name, ArtifactUri: uri, VersionAliases: p.aliases}}
	if p.image != "" || len(p.env) > 0 {
		spec := &pb.ModelContainerSpec{ImageUri: p.image}
		for _, name := range slices.Sorted(maps.Keys(p.env)) {
			spec.Env = append(spec.Env, &pb.EnvVar{Name: name, Value: p.env[name]})
		}
		req.Model.ContainerSpec = spec
	}
	ctx := p.cmd.Context()
	switch v, err := p.models.find(ctx, p.name); {
	case err == nil:
		req.ParentModel = v.model()
	case !resource.IsNotFound(err):
		return modelView{}, err
	default:
		req.ModelId = idOf(p.name)
	}
	var made struct {
		Model   string `json:"model"`
		Version string `json:"modelVersionId"`
	}
	if err := p.models.operate(ctx, http.MethodPost, "/v1beta1/"+p.models.parent+"/models:upload", req, &made); err != nil {
		return modelView{}, fmt.Errorf("register the model, whose files are in %s: %w", uri, err)
	}
	return p.models.get(ctx, made.Model+"@"+made.Version)
}

// titleOf is the name of a file or folder; a file that has but the usual name has its
// folder's.
func titleOf(source string) string {
	clean := strings.TrimSuffix(source, "/")
	if !transfer.IsRemote(source) {
		if whole, err := filepath.Abs(source); err == nil {
			clean = filepath.ToSlash(whole)
		}
	}
	base := path.Base(clean)
	stem := strings.TrimSuffix(base, path.Ext(base))
	if stem == "model" && path.Ext(base) != "" {
		return path.Base(path.Dir(clean))
	}
	if slices.Contains(modelEndings(), path.Ext(base)) {
		return stem
	}
	return base
}

// modelEndings are those of files that are models without an image.
func modelEndings() []string {
	return []string{".txt", ".lgb", ".json", ".ubj", ".bst", ".xgb", ".model", ".onnx", ".mar", ".war"}
}

// idOf makes an id of a name: letters, digits, _ and -. A name that gives none leaves it
// to the server.
func idOf(name string) string {
	id := strings.Trim(regexp.MustCompile(`[^a-z0-9_-]+`).ReplaceAllString(strings.ToLower(name), "-"), "-_")
	if len(id) > 63 || !regexp.MustCompile(`^[a-z]`).MatchString(id) {
		return ""
	}
	return id
}

// artifact gives the gs:// place of the files, where it copies those of this machine.
func (p *push) artifact(source string) (string, error) {
	if transfer.IsRemote(source) {
		if p.to != "" {
			return "", resource.Invalid("to", "--to says where files of this machine go; %s is in a bucket already", source)
		}
		return strings.TrimSuffix(source, "/"), nil
	}
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return "", resource.NotFound(source).WithHint("SOURCE is a file or folder of this machine, or gs://BUCKET/FOLDER")
	}
	if err != nil {
		return "", err
	}
	if err := p.recognise(source, info.IsDir()); err != nil {
		return "", err
	}
	project, _, _ := strings.Cut(strings.TrimPrefix(p.models.parent, "projects/"), "/")
	bucket := project + "-models"
	folder := "gs://" + bucket + "/" + cmp.Or(idOf(p.name), "model") + "/" + time.Now().UTC().Format("20060102-150405.000")
	if p.to != "" {
		at, err := transfer.ParseURL(p.to)
		if err != nil {
			return "", err
		}
		bucket, folder = at.Bucket, strings.TrimSuffix(p.to, "/")
	}
	if err := p.bucket(project, bucket); err != nil {
		return "", err
	}
	copies := transfer.Copier{
		Client:    &transfer.Client{Base: p.models.base, HTTP: p.models.http, Token: p.models.token},
		Recursive: info.IsDir(), Stdin: p.cmd.InOrStdin(), Stdout: p.cmd.OutOrStdout(),
	}
	into := folder // a copy of the folder
	if !info.IsDir() {
		into += "/" + filepath.Base(source)
	}
	if err := runCopy(p.cmd, &copies, []string{source}, into, false); err != nil {
		return "", err
	}
	return folder, nil
}

// bucket makes the bucket, if it is not there.
func (p *push) bucket(project, name string) error {
	err := p.models.call(p.cmd.Context(), http.MethodPost, "/storage/v1/b?project="+url.QueryEscape(project), map[string]string{"name": name}, nil)
	if e, ok := errors.AsType[*answerError](err); ok && e.status == http.StatusConflict {
		return nil
	}
	return err
}

// recognise chooses what serves the files, where nobody did, and refuses what nothing does
// before anything is copied.
func (p *push) recognise(source string, dir bool) error {
	if p.image != "" {
		return nil
	}
	names := []string{filepath.Base(source)}
	if dir {
		entries, err := os.ReadDir(source)
		if err != nil {
			return err
		}
		names = names[:0]
		for _, e := range entries {
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if _, err := os.Stat(filepath.Join(source, "src", "predictor.py")); err == nil {
			names = append(names, "predictor.py")
		}
	}
	pickle := ""
	for _, name := range names {
		switch ending := filepath.Ext(name); {
		case dir && name == "predictor.py":
			p.image = "tategu/cpr"
			return nil
		case ending == ".joblib" || ending == ".pkl":
			pickle = name
		}
	}
	switch {
	case slices.ContainsFunc(names, func(name string) bool { return slices.Contains(modelEndings(), filepath.Ext(name)) }):
		return nil
	case pickle != "":
		return resource.Invalid("image", "%s is a pickle: it needs the library that wrote it, of the same version", pickle).
			WithHint("name the prebuilt image of that version, such as --image us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest")
	}
	return resource.Invalid("image", "nothing in %s is known to be a model: a LightGBM, XGBoost or ONNX file, an archive of TorchServe, predictor.py", source).
		WithHint("name the image that serves it by --image")
}
