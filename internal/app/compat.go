package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"tategu/internal/api"
)

// compatPackages are the APIs whose methods docs/compat.md lists.
func compatPackages() []protoreflect.FullName {
	return []protoreflect.FullName{"google.cloud.aiplatform.v1beta1", "google.longrunning", "google.cloud.location", "google.cloud.resourcemanager.v3", "google.iam.admin.v1", "google.iam.credentials.v1", "google.cloud.aiplatform.container.v1"}
}

// Compat writes docs/compat.md: every method of the APIs, served or not.
func Compat(ctx context.Context, w io.Writer) error {
	table, err := currentTable(ctx)
	if err != nil {
		return err
	}
	return writeCompat(w, table)
}

// Served lists the methods of the dispatch table; those of aiplatform by their
// v1beta1 names.
func Served(ctx context.Context) ([]string, error) {
	table, err := currentTable(ctx)
	if err != nil {
		return nil, err
	}
	return table.Names(), nil
}

// currentTable is the dispatch table of a server built on a temporary directory,
// so that what is said of it is what is. Its handlers must not be called.
func currentTable(ctx context.Context) (_ *api.Table, err error) {
	dir, err := os.MkdirTemp("", "tategu-compat-")
	if err != nil {
		return nil, fmt.Errorf("compat: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := Defaults()
	cfg.Listen, cfg.Data, cfg.Cache, cfg.LogLevel = "127.0.0.1:0", filepath.Join(dir, "data"), filepath.Join(dir, "cache"), "error"
	cfg.UV = os.Args[0] // nothing is run, and looking for uv could install it
	m, err := New(ctx, cfg, "", io.Discard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return m.table()
}

func writeCompat(w io.Writer, table *api.Table) error {
	if _, err := io.WriteString(w, compatHead); err != nil {
		return err
	}
	for _, s := range compatServices() {
		methods := s.Methods()
		served := 0
		for i := range methods.Len() {
			if _, ok := table.Lookup(methodName(methods.Get(i))); ok {
				served++
			}
		}
		if _, err := fmt.Fprintf(w, "\n## %s (%d of %d)\n", s.FullName(), served, methods.Len()); err != nil {
			return err
		}
		if served == 0 {
			continue // a service that is wholly absent needs no list of its methods
		}
		if _, err := io.WriteString(w, "| method | | permission |\n| --- | --- | --- |\n"); err != nil {
			return err
		}
		for i := range methods.Len() {
			md := methods.Get(i)
			mark, permission := "UNIMPLEMENTED", ""
			if m, ok := table.Lookup(methodName(md)); ok {
				mark, permission = "served", "`"+m.Permission+"`"
			}
			if _, err := fmt.Fprintf(w, "| %s | %s | %s |\n", md.Name(), mark, permission); err != nil {
				return err
			}
		}
	}
	return nil
}

func methodName(md protoreflect.MethodDescriptor) string {
	return string(md.Parent().FullName()) + "/" + string(md.Name())
}

func compatServices() []protoreflect.ServiceDescriptor {
	var out []protoreflect.ServiceDescriptor
	for _, pkg := range compatPackages() {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
			for i := range f.Services().Len() {
				out = append(out, f.Services().Get(i))
			}
			return true
		})
	}
	slices.SortFunc(out, func(a, b protoreflect.ServiceDescriptor) int { return cmp.Compare(a.FullName(), b.FullName()) })
	return out
}
