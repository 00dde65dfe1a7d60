package modelformat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/modelformat/lightgbm"
	"tategu/internal/modelformat/xgboost"
	"tategu/internal/resource"
)

// object is a place in the object store; name "" means that there is none.
type object struct{ bucket, name string }

func (o object) uri() string { return "gs://" + o.bucket + "/" + o.name }

// splitURI cuts gs://BUCKET/NAME.
func splitURI(uri string) (object, error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	bucket, name, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return object{}, resource.Invalid("artifact_uri", "%q is not of the form gs://BUCKET/NAME", uri)
	}
	return object{bucket, name}, nil
}

// library is what wrote a model file.
type library string

const (
	anyLibrary library = ""
	lightGBM   library = "LightGBM"
	xgBoost    library = "XGBoost"
	onnxModel  library = "ONNX"
)

// modelFile is a file that can be evaluated here.
type modelFile struct {
	object
	library library
}

// listing is what an artifact directory holds.
type listing struct {
	dir      string // ends in a slash, "" is the bucket itself
	files    []modelFile
	onnx     []object // ONNX models
	archives []object // of TorchServe
	other    string   // the name of a file that a prebuilt image loads, "" without one
}

// Extensions that model files have; what a file is, its content tells.
func mayBeModel(name string) bool {
	switch path.Ext(name) {
	case ".txt", ".lgb", ".json", ".ubj", ".bst", ".model", ".bin", ".xgb", ".deprecated", "":
		return !strings.HasSuffix(name, "/")
	}
	return false
}

// list looks for model files: the object uri itself, else the objects directly
// under it.
func list(ctx context.Context, objects Objects, uri string, want library) (listing, error) {
	if uri == "" {
		return listing{}, nil
	}
	at, err := splitURI(uri)
	if err != nil {
		return listing{}, err
	}
	l := listing{dir: strings.TrimSuffix(at.name, "/")}
	if l.dir != "" {
		if err := look(ctx, objects, &l, object{at.bucket, l.dir}, want); err != nil || len(l.files)+len(l.onnx) > 0 {
			return l, err
		}
		if len(l.archives) > 0 {
			return l, nil
		}
		l.dir += "/"
	}
	for q := (blob.ListQuery{Prefix: l.dir, Delimiter: "/"}); ; {
		page, err := objects.List(ctx, at.bucket, q)
		if err != nil {
			return l, fmt.Errorf("look for a model file in %s: %w", uri, err)
		}
		for _, o := range page.Objects {
			switch name := path.Base(o.Name); name {
			case "model.joblib", "model.pkl", "saved_model.pb":
				l.other = name
			}
			if isArchive(o.Name) {
				l.archives = append(l.archives, object{at.bucket, o.Name})
				continue
			}
			if mayBeModel(o.Name) || isONNX(o.Name) {
				if err := look(ctx, objects, &l, object{at.bucket, o.Name}, want); err != nil {
					return l, err
				}
			}
		}
		if q.After = page.Next; page.Next == "" {
			return l, nil
		}
	}
}

// choose takes the file that is called as a prebuilt image wants it, else the only one.
func (l listing) choose(uri string) (modelFile, error) {
	for _, name := range []string{"model.bst", "model.txt", "model.ubj", "model.json"} {
		if i := slices.IndexFunc(l.files, func(f modelFile) bool { return f.name == l.dir+name }); i >= 0 {
			return l.files[i], nil
		}
	}
	switch len(l.files) {
	case 0:
		return modelFile{}, nil
	case 1:
		return l.files[0], nil
	}
	a, b := l.files[0], l.files[1]
	kind := string(a.library)
	if a.library != b.library {
		kind = "LightGBM and XGBoost"
	}
	return modelFile{}, resource.Errorf(codes.FailedPrecondition, "%s holds several %s models: %s and %s", uri, kind, path.Base(a.name), path.Base(b.name)).
		WithCause(resource.CauseModel).WithHint("name the one to serve model.txt (LightGBM) or model.bst (XGBoost), or make artifact_uri its URI")
}

// look reads the first bytes of an object and adds it when it is a model. One that
// does not exist is none.
func look(ctx context.Context, objects Objects, l *listing, o object, want library) (err error) {
	if isONNX(o.name) && want != anyLibrary && want != onnxModel {
		return nil
	}
	r, err := objects.ReadObject(ctx, o.bucket, o.name)
	if resource.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", o.uri(), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if isArchive(o.name) {
		l.archives = append(l.archives, o)
		return nil
	}
	if isONNX(o.name) { // its content has no mark: the name must tell
		l.onnx = append(l.onnx, o)
		return nil
	}
	var buffer [xgboost.HeadSize]byte
	n, err := io.ReadFull(r, buffer[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w", o.uri(), err)
	}
	kind := libraryOf(buffer[:n])
	if kind == anyLibrary && n > 0 && buffer[0] == pickleStart && path.Base(o.name) == "model.bst" {
		l.other = "model.bst"
	}
	if kind != anyLibrary && (want == anyLibrary || want == kind) {
		l.files = append(l.files, modelFile{o, kind})
	}
	return nil
}

// pickleStart begins a pickle of protocol 2 or later.
const pickleStart = 0x80

// libraryOf tells a model by its first bytes, anyLibrary when it is none.
func libraryOf(head []byte) library {
	if start := string(head[:min(len(head), 5)]); start == "tree\n" || start == "tree\r" {
		return lightGBM
	}
	if xgboost.Detect(head) != xgboost.Unknown {
		return xgBoost
	}
	return anyLibrary
}

func load(ctx context.Context, objects Objects, f modelFile) (n *Native, err error) {
	r, err := objects.ReadObject(ctx, f.bucket, f.name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.uri(), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	model, err := f.library.parse(r)
	if err == nil {
		return newNative(model), nil
	}
	_, lightGBMSyntax := errors.AsType[*lightgbm.SyntaxError](err)
	_, xgBoostSyntax := errors.AsType[*xgboost.SyntaxError](err)
	if !lightGBMSyntax && !xgBoostSyntax {
		return nil, fmt.Errorf("read %s: %w", f.uri(), err)
	}
	return nil, resource.Errorf(codes.FailedPrecondition, "%s is not %s model that can be served: %w", f.uri(), f.library.article(), err).
		WithCause(resource.CauseModel).WithHint(`save it again with booster.save_model("%s"), and check that the whole file was uploaded`, f.library.fileName())
}

func (l library) parse(r io.Reader) (evaluator, error) {
	if l == xgBoost {
		m, err := xgboost.Parse(r)
		return xgboostModel{m}, err
	}
	m, err := lightgbm.Parse(r)
	if err != nil {
		return nil, err
	}
	return newLightGBM(m), nil
}

func (l library) article() string {
	if l == xgBoost {
		return "an XGBoost"
	}
	return "a LightGBM"
}

func (l library) fileName() string {
	if l == xgBoost {
		return "model.ubj"
	}
	return "model.txt"
}
