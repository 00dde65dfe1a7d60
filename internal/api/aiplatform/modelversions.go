package aiplatform

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// kindModelCounter holds the last version number of a model, so that the number
// of a deleted version is not given again. The key is the model's name.
const kindModelCounter store.Kind = "modelVersionCounters"

// defaultAlias marks the version that a name without "@" means.
const defaultAlias = "default"

// Model resolves NAME, NAME@VERSION or NAME@ALIAS. The model's Name has no "@";
// its VersionId is set.
func (s *Standard) Model(ctx context.Context, r store.Reader, name string) (*pb.Model, error) {
	base, version, _ := strings.Cut(name, "@")
	m := &pb.Model{}
	if err := s.Load(ctx, r, base, m); err != nil {
		return nil, err
	}
	switch {
	case version == "" || version == "-" || version == defaultAlias || version == m.VersionId:
		return m, nil
	case isNumber(version):
		v := &pb.Model{}
		_, err := store.GetMessage(ctx, r, resource.KindModelVersions, resource.VersionName(base, version), v)
		return v, err
	}
	return modelformat.AliasedModel(ctx, r, base, version)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// modelVersions lists the versions of a model, oldest first.
func modelVersions(ctx context.Context, r store.Reader, model string) ([]*pb.Model, error) {
	rows, err := r.List(ctx, store.Query{Kind: resource.KindModelVersions, Parent: model, Order: store.ByCreated})
	if err != nil {
		return nil, err
	}
	out := make([]*pb.Model, len(rows))
	for i, row := range rows {
		out[i] = &pb.Model{}
		if err := store.Unmarshal(row, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func isDefault(m *pb.Model) bool { return slices.Contains(m.VersionAliases, defaultAlias) }

// putVersion writes a version, and the model's row when it is the default one.
func (s *Models) putVersion(ctx context.Context, tx store.Tx, m *pb.Model) error {
	m.DeployedModels = nil
	if err := setEtag(m); err != nil {
		return err
	}
	row := store.Row{Kind: resource.KindModelVersions, Key: resource.VersionName(m.Name, m.VersionId), Parent: m.Name}
	if err := store.PutMessage(ctx, tx, row, m); err != nil {
		return err
	}
	if !isDefault(m) {
		return nil
	}
	parent := m.Name[:strings.LastIndex(m.Name, "/models/")]
	return store.PutMessage(ctx, tx, store.Row{Kind: resource.KindModels, Key: m.Name, Parent: parent}, m)
}

// takeAliases removes aliases that a version gets from every other version of the model:
// an alias names one version.
func (s *Models) takeAliases(ctx context.Context, tx store.Tx, model, except string, aliases []string) error {
	versions, err := modelVersions(ctx, tx, model)
	if err != nil {
		return err
	}
	for _, v := range versions {
		kept := slices.DeleteFunc(slices.Clone(v.VersionAliases), func(a string) bool { return slices.Contains(aliases, a) })
		if v.VersionId == except || len(kept) == len(v.VersionAliases) {
			continue
		}
		v.VersionAliases = kept
		if err := s.putVersion(ctx, tx, v); err != nil {
			return err
		}
	}
	return moved(ctx, tx, model, except, aliases)
}

// moved writes down that aliases are those of a version now. Whoever follows one watches
// these rows, and tells two moves to the same version apart by their revisions.
func moved(ctx context.Context, tx store.Tx, model, version string, aliases []string) error {
	for _, alias := range aliases {
		row := store.Row{Kind: resource.KindModelAliases, Key: resource.VersionName(model, alias), Parent: model, Data: []byte(version)}
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// dropped takes the rows of aliases away that name nothing any more.
func dropped(ctx context.Context, tx store.Tx, model string, aliases []string) error {
	for _, alias := range aliases {
		if err := tx.Delete(ctx, resource.KindModelAliases, resource.VersionName(model, alias)); err != nil {
			return err
		}
	}
	return nil
}

func withAlias(aliases []string, alias string) []string {
	if slices.Contains(aliases, alias) {
		return aliases
	}
	return append(aliases, alias)
}

// checkAliases wants the form that the API documents for version aliases.
func checkAliases(aliases []string) error {
	form := regexp.MustCompile(`^[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]$`)
	for _, a := range aliases {
		if !form.MatchString(a) {
			return resource.Invalid("version_aliases", "%q is not a version alias: want [a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", a)
		}
	}
	return nil
}

// mergeAliases adds aliases to a version, taking them from others; "-x" removes x.
func (s *Models) mergeAliases(ctx context.Context, req *pb.MergeVersionAliasesRequest) (*pb.Model, error) {
	if !strings.Contains(req.Name, "@") {
		return nil, resource.Invalid("name", "%q names no version: want MODEL@VERSION", req.Name)
	}
	var add, remove []string
	for _, a := range req.VersionAliases {
		if name, ok := strings.CutPrefix(a, "-"); ok {
			remove = append(remove, name)
		} else {
			add = append(add, a)
		}
	}
	if err := checkAliases(slices.Concat(add, remove)); err != nil {
		return nil, err
	}
	var m *pb.Model
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		var err error
		if m, err = s.std.Model(ctx, tx, req.Name); err != nil {
			return err
		}
		if isDefault(m) && slices.Contains(remove, defaultAlias) {
			return resource.Errorf(codes.FailedPrecondition, "a model has exactly one default version").WithResource(req.Name).
				WithHint("add the alias default to another version instead")
		}
		had := slices.Clone(m.VersionAliases)
		for _, a := range add {
			m.VersionAliases = withAlias(m.VersionAliases, a)
		}
		m.VersionAliases = slices.DeleteFunc(m.VersionAliases, func(a string) bool { return slices.Contains(remove, a) })
		s.touch(m)
		got := slices.DeleteFunc(add, func(a string) bool { return slices.Contains(had, a) })
		if err := s.takeAliases(ctx, tx, m.Name, m.VersionId, got); err != nil {
			return err
		}
		if err := dropped(ctx, tx, m.Name, without(had, m.VersionAliases)); err != nil {
			return err
		}
		return s.putVersion(ctx, tx, m)
	})
	if err != nil {
		return nil, err
	}
	nameVersion(req.Name, m)
	return m, nil
}

// without gives those of had that has lacks.
func without(had, has []string) []string {
	return slices.DeleteFunc(had, func(a string) bool { return slices.Contains(has, a) })
}

func (s *Models) touch(m *pb.Model) {
	now := timestamppb.New(s.std.now())
	m.UpdateTime, m.VersionUpdateTime = now, now
}

// update changes a model (NAME, NAME@-) or one version (NAME@VERSION).
func (s *Models) update(ctx context.Context, req *pb.UpdateModelRequest) (*pb.Model, error) {
	if req.GetModel() == nil {
		return nil, resource.Invalid("model", "model is missing")
	}
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		return nil, resource.Invalid("update_mask", "update_mask is missing: name the fields to change")
	}
	_, version, _ := strings.Cut(req.Model.Name, "@")
	ofVersion := version != "" && version != "-"
	if err := checkModelUpdate(req, ofVersion); err != nil {
		return nil, err
	}
	var m *pb.Model
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		var err error
		if m, err = s.std.Model(ctx, tx, req.Model.Name); err != nil {
			return err
		}
		if err := Merge(req, m, req.Model); err != nil {
			return err
		}
		s.touch(m)
		if err := s.putVersion(ctx, tx, m); err != nil || ofVersion {
			return err
		}
		return s.updateSiblings(ctx, tx, req, m)
	})
	if err != nil {
		return nil, err
	}
	nameVersion(req.Model.Name, m)
	return m, nil
}

// updateSiblings carries an update of a model to its other versions.
func (s *Models) updateSiblings(ctx context.Context, tx store.Tx, req *pb.UpdateModelRequest, m *pb.Model) error {
	versions, err := modelVersions(ctx, tx, m.Name)
	if err != nil {
		return err
	}
	given := proto.CloneOf(req.Model)
	given.Etag = "" // checked against the version that was named
	for _, v := range versions {
		if v.VersionId == m.VersionId {
			continue
		}
		if err := Merge(req, v, given); err != nil {
			return err
		}
		v.UpdateTime = m.UpdateTime
		if err := s.putVersion(ctx, tx, v); err != nil {
			return err
		}
	}
	return nil
}

// checkModelUpdate holds the mask to what UpdateModelRequest documents.
func checkModelUpdate(req *pb.UpdateModelRequest, ofVersion bool) error {
	mask, err := updateMask(req, req.Model.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	if mask.Whole() {
		return resource.Invalid("update_mask", `"*" is not possible for a model: name the fields to change`)
	}
	for _, field := range mask.Names() {
		switch {
		case field == "labels":
		case field == "version_description" && ofVersion, (field == "display_name" || field == "description") && !ofVersion:
		case field == "version_description":
			return resource.Errorf(codes.FailedPrecondition, "version_description belongs to a version, and %q names a model", req.Model.Name).
				WithHint("name a version: MODEL@VERSION")
		case field == "display_name" || field == "description":
			return resource.Errorf(codes.FailedPrecondition, "%s belongs to the model, and %q names a version", field, req.Model.Name).
				WithHint("leave out the version")
		default:
			return resource.Invalid("update_mask", "%s of a model cannot be changed: upload a new version", field)
		}
	}
	return nil
}

func putCounter(ctx context.Context, tx store.Tx, model string, n int) error {
	return tx.Put(ctx, store.Row{Kind: kindModelCounter, Key: model, Data: []byte(strconv.Itoa(n))})
}

func nextCounter(ctx context.Context, tx store.Tx, model string) (string, error) {
	row, err := tx.Get(ctx, kindModelCounter, model)
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(string(row.Data))
	if err != nil {
		return "", err
	}
	return strconv.Itoa(n + 1), putCounter(ctx, tx, model, n+1)
}
