// Package aiplatform answers the aiplatform API: one file per service, each
// service a struct that lists the ports it needs and a Methods function that
// gives its rows of the dispatch table. It checks and translates; the engines
// act on the rows it writes. It never waits for an engine.
//
// Standard is the generic engine for the standard methods. A resource is a
// v1beta1 message in a row: Kind is the collection id of its google.api.resource
// pattern ("customJobs"), Key its full name, Parent the parent's name, State the
// state given. The owner of a service with semantics of its own takes the plain
// methods from Standard.Methods and writes the others with the building blocks:
//
//	func (j *CustomJobs) Methods() ([]api.Method, error) {
//		methods, err := j.std.Methods("JobService", "GetCustomJob", "ListCustomJobs", "DeleteCustomJob")
//		if err != nil {
//			return nil, err
//		}
//		return append(methods,
//			api.Unary(aiplatform.MethodName("JobService", "CreateCustomJob"), "aiplatform.customJobs.create", j.create)), nil
//	}
//
//	func (j *CustomJobs) create(ctx context.Context, req *pb.CreateCustomJobRequest) (*pb.CustomJob, error) {
//		job := proto.CloneOf(req.CustomJob)
//		aiplatform.ClearOutputOnly(job)
//		err := j.store.Update(ctx, func(tx store.Tx) error {
//			job.State = pb.JobState_JOB_STATE_QUEUED
//			return j.std.Insert(ctx, tx, req.Parent, "", job, job.State.String())
//		})
//		return job, err
//	}
//
// Permissions are aiplatform.COLLECTION.VERB; the verbs of the standard methods
// are create, get, list, update and delete.
package aiplatform

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// ServicePrefix comes before the service in the full name of a method.
const ServicePrefix = "google.cloud.aiplatform.v1beta1."

// Standard is the generic engine for the standard methods.
type Standard struct {
	store store.Store
	now   func() time.Time
	ids   *regexp.Regexp
}

// NewStandard makes the engine over a store; now stamps create and update times.
func NewStandard(st store.Store, now func() time.Time) *Standard {
	return &Standard{store: st, now: now, ids: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}$`)}
}

// MethodName gives the full name of an aiplatform method for the dispatch table.
func MethodName(service, method string) string { return ServicePrefix + service + "/" + method }

// Insert writes a new resource below parent. It fills name, create and update
// time and etag where the message has them; an empty id becomes a numeric one.
// A name that is taken is an AlreadyExists error.
func (s *Standard) Insert(ctx context.Context, tx store.Tx, parent, id string, msg proto.Message, state string) error {
	m := msg.ProtoReflect()
	typ, err := typeOf(m.Descriptor())
	if err != nil {
		return err
	}
	if id == "" {
		id, _ = resource.IDFor(ctx)
	} else if err := s.checkID(typ.singular, id); err != nil {
		return err
	}
	name := parent + "/" + typ.collection + "/" + id
	if !typ.matches(name) || strings.Contains(name, "/-/") {
		return resource.Invalid("parent", "%q is not a parent of %s: want %s", parent, typ.collection, typ.parentPattern())
	}
	switch _, err := tx.Get(ctx, typ.kind(), name); {
	case err == nil:
		return resource.Errorf(codes.AlreadyExists, "%s already exists", name).WithResource(name)
	case !resource.IsNotFound(err):
		return fmt.Errorf("insert: %w", err)
	}
	if err := checkSize(typ.singular, msg); err != nil {
		return err
	}
	setString(m, "name", name)
	now := s.now()
	setTime(m, "create_time", now)
	return s.put(ctx, tx, msg, state, now)
}

func (s *Standard) checkID(singular, id string) error {
	if s.ids.MatchString(id) {
		return nil
	}
	return resource.Invalid(singular+"_id", "%q is not an id: letters, digits and . _ : ~ - are allowed, 128 at most", id)
}

// maxResource bounds one resource, so that a page of them fits into memory;
// maxMetadata is what the API documents for the metadata of artifacts, executions
// and contexts.
const (
	maxResource = 4 << 20
	maxMetadata = 200 << 10
	// maxPipeline bounds what has a pipeline spec in it; 1 MiB is for all the rest.
	maxPipeline = pipeline.MaxSpec + 1<<20
)

func mostOf(msg proto.Message) int {
	switch msg.(type) {
	case *pb.PipelineJob, *pb.Schedule:
		return maxPipeline
	default:
		return maxResource
	}
}

func checkSize(field string, msg proto.Message) error {
	if metadata, ok := message(msg.ProtoReflect(), "metadata").(*structpb.Struct); ok && proto.Size(metadata) > maxMetadata {
		return resource.Invalid(field+".metadata", "the metadata has %d bytes; %d is the most", proto.Size(metadata), maxMetadata).
			WithHint("put large values into an artifact's file")
	}
	if n, most := proto.Size(msg), mostOf(msg); n > most {
		return resource.Invalid(field, "the %s has %d bytes; %d is the most", field, n, most).WithHint("put large values into a bucket")
	}
	return nil
}

// Load reads the named resource into msg, or answers NotFound naming it.
func (s *Standard) Load(ctx context.Context, r store.Reader, name string, msg proto.Message) error {
	typ, err := typeOf(msg.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	if !typ.matches(name) {
		return resource.Invalid("name", "%q is not the name of a %s: want %s", name, typ.message, typ.patterns[0])
	}
	_, err = store.GetMessage(ctx, r, typ.kind(), name, msg)
	return err
}

// Save writes a resource that exists; it sets the update time and a new etag.
func (s *Standard) Save(ctx context.Context, tx store.Tx, msg proto.Message, state string) error {
	return s.put(ctx, tx, msg, state, s.now())
}

// Remove deletes a resource, which it loads into msg, or answers NotFound. etag,
// unless empty, must be the stored one. What lies below it stays: its owner knows.
func (s *Standard) Remove(ctx context.Context, tx store.Tx, name, etag string, msg proto.Message) error {
	if err := s.Load(ctx, tx, name, msg); err != nil {
		return err
	}
	if err := CheckEtag(msg, etag); err != nil {
		return err
	}
	typ, err := typeOf(msg.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	return tx.Delete(ctx, typ.kind(), name)
}

// CheckEtag answers ABORTED when the caller's etag is not the one of the resource.
func CheckEtag(msg proto.Message, etag string) error {
	m := msg.ProtoReflect()
	if have := getString(m, "etag"); etag != "" && have != "" && etag != have {
		return resource.Errorf(codes.Aborted, "the etag of %s is stale: it was changed by somebody else", getString(m, "name")).
			WithResource(getString(m, "name")).WithHint("read it again and repeat the change")
	}
	return nil
}

func (s *Standard) put(ctx context.Context, tx store.Tx, msg proto.Message, state string, now time.Time) error {
	m := msg.ProtoReflect()
	typ, err := typeOf(m.Descriptor())
	if err != nil {
		return err
	}
	name, err := resource.ParseName(getString(m, "name"))
	if err != nil {
		return err
	}
	setTime(m, "update_time", now)
	if err := setEtag(msg); err != nil {
		return err
	}
	row := store.Row{Kind: typ.kind(), Key: name.String(), Parent: name.Parent().String(), State: state}
	return store.PutMessage(ctx, tx, row, msg)
}

func setEtag(msg proto.Message) error {
	m := msg.ProtoReflect()
	if m.Descriptor().Fields().ByName("etag") == nil {
		return nil
	}
	setString(m, "etag", "")
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return fmt.Errorf("etag: %w", err)
	}
	setString(m, "etag", resource.ETag(data))
	return nil
}
