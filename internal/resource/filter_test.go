package resource

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func modelSchema() Schema {
	return Schema{
		Message: (&pb.Model{}).ProtoReflect().Descriptor(),
		Aliases: map[string]string{"model": "name/", "image": "container_spec.image_uri"},
		Calls:   []string{"in_context", "parents"},
	}
}

func sampleModel(tb testing.TB) *pb.Model {
	tb.Helper()
	m := &pb.Model{
		Name: "projects/p/locations/l/models/77", DisplayName: `a "quoted" name`, Description: "50*2 = 100",
		VersionAliases: []string{"default", "prod"},
		Labels:         map[string]string{"team": "ml", "a key": "x y", "empty": ""},
		CreateTime:     timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)),
		ContainerSpec: &pb.ModelContainerSpec{
			ImageUri: "img:1", Ports: []*pb.Port{{ContainerPort: 80}, {ContainerPort: 8080}}, DeploymentTimeout: durationpb.New(90 * time.Second),
		},
		SupportedExportFormats: []*pb.Model_ExportFormat{{Id: "onnx", ExportableContents: []pb.Model_ExportFormat_ExportableContent{pb.Model_ExportFormat_IMAGE}}},
		DefaultCheckpointId:    "c1",
	}
	value := &structpb.Value{}
	if err := protojson.Unmarshal([]byte(`{"n": 10, "s": "text", "b": true, "in": {"deep:er": [1, "two"]}, "number_value": "trap", "null": null}`), value); err != nil {
		tb.Fatal(err)
	}
	m.Metadata = value
	return m
}

func TestFilter(t *testing.T) {
	t.Parallel()
	m := sampleModel(t).ProtoReflect()
	for text, want := range map[string]bool{
		"":            true,
		"  \n":        true,
		"model=77":    true,
		"model != 77": false,
		`name="projects/p/locations/l/models/77"`:               true,
		`display_name="a \"quoted\" name"`:                      true,
		`display_name='a "quoted" name'`:                        true,
		`displayName:"*quoted*"`:                                true,
		`display_name="*zz*"`:                                   false,
		`description="50\*2*"`:                                  true,
		`description="5\*2*"`:                                   false,
		`display_name>"a"`:                                      true,
		`display_name<="a"`:                                     false,
		"labels.team=ml":                                        true,
		`labels."a key"="x y"`:                                  true,
		"labels.none=ml":                                        false,
		"labels.none!=ml":                                       true,
		"labels:team":                                           true,
		"labels:none":                                           false,
		"labels.team:*":                                         true,
		"labels.none:*":                                         false,
		"labels.empty:*":                                        false,
		"labels:*":                                              true,
		"version_aliases:prod":                                  true,
		"version_aliases=x":                                     false,
		"NOT version_aliases:prod":                              false,
		"-version_aliases:x":                                    true,
		`create_time>"2026-03-01T12:00:00Z"`:                    true,
		"create_time>=2026-03-01T12:00:00.000000005Z":           true,
		`create_time<"2026-03-01T13:00:00.1+01:00"`:             true,
		"create_time<2026-03-01":                                false,
		"update_time:*":                                         false,
		"create_time:*":                                         true,
		"update_time>2020-01-01":                                false,
		"container_spec.image_uri=img:1":                        true,
		"image=img*":                                            true,
		"container_spec.ports.container_port=8080":              true,
		"container_spec.ports.container_port>9000":              false,
		"container_spec.deployment_timeout>1m":                  true,
		"supported_export_formats.exportable_contents=IMAGE":    true,
		"supported_export_formats.exportable_contents=ARTIFACT": false,
		"metadata.n=10":                                         true,
		"metadata.n.number_value=10.0":                          true,
		"metadata.n>10":                                         false,
		"metadata.n=text":                                       false,
		"metadata.s.string_value=te*":                           true,
		"metadata.s.number_value=1":                             false,
		"metadata.b=true":                                       true,
		"metadata.b.bool_value=false":                           false,
		`metadata.in."deep:er"=two`:                             true,
		`metadata.in."deep:er"=3`:                               false,
		"metadata.in:none":                                      false,
		`metadata.in:"deep:er"`:                                 true,
		"metadata.number_value=trap":                            true,
		"metadata.null:*":                                       false,
		"metadata.none=1":                                       false,
		"model=77 AND labels.team=ml":                           true,
		"model=77 labels.team=x":                                false,
		"model=1 OR model=77":                                   true,
		"model=77 AND model=1 OR model=77":                      true, // OR binds tighter
		"model=1 AND model=77 OR model=77":                      false,
		"(model=1 AND model=1) OR model=77":                     true,
		"NOT (model=77 AND labels.team=ml)":                     false,
		"NOT(model=1)":                                          true,
		`in_context("yes")`:                                     true,
		`in_context("no", "yes")`:                               true,
		`in_context(no) OR model=77`:                            true,
		`parents:"no","yes" AND model=77`:                       true,
		`parents!="yes"`:                                        false,
		`NOT in_context("yes")`:                                 false,
	} {
		f, err := ParseFilter(text, modelSchema())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := f.Match(m, func(_ string, args []string) (bool, error) { return slices.Contains(args, "yes"), nil })
		if err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestFilterErrors(t *testing.T) {
	t.Parallel()
	for text, part := range map[string]string{
		"nope=1":                                `"nope" is not a field`,
		"labels=1":                              "by key",
		"container_spec=1":                      "name one of its fields",
		"container_spec.nope=1":                 "nope",
		"display_name.x=1":                      `"display_name" has no fields`,
		"display_name":                          "operator",
		"display_name=":                         "value is missing",
		"display_name=a)":                       "not expected",
		"(display_name=a":                       "parenthesis",
		`display_name="a`:                       "quote",
		"=a":                                    "field name",
		"NOT":                                   "field name",
		"model=77 AND":                          "field name is missing at the end",
		"model=77 OR ":                          "field name is missing at the end",
		"create_time>yesterday":                 "yesterday",
		"container_spec.ports.container_port=x": "not a number",
		"container_spec.deployment_timeout>x":   "duration",
		"supported_export_formats.exportable_contents=NOPE": "NOPE",
		`fn("x")`:                        `no function "fn"`,
		`in_context("x"`:                 "parenthesis",
		`in_context`:                     "operator",
		strings.Repeat("(", 100) + "x=1": "nested",
		strings.Repeat("x", 70_000):      "at most",
		"display_name=\xff":              "UTF-8",
	} {
		_, err := ParseFilter(text, modelSchema())
		if CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), part) {
			t.Errorf("%.60s: got %v, want it to hold %q", text, err, part)
		}
	}
}

func TestWildcard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "abc", true},
		{"a*c", "abc", true},
		{"a*c", "ab", false},
		{"*b*", "abc", true},
		{"a**c", "ac", true},
		{"*ab", "aab", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c", false},
		{"abc", "abcd", false},
	} {
		if got := matchWildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q on %q = %v", tt.pattern, tt.s, got)
		}
	}
}

func TestOrderBy(t *testing.T) {
	t.Parallel()
	at := func(sec int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(sec, 0)) }
	models := []*pb.Model{
		{VersionId: "0", DisplayName: "b", CreateTime: at(1)},
		{VersionId: "1", DisplayName: "a", CreateTime: at(3), Labels: map[string]string{"k": "z"}},
		{VersionId: "2", DisplayName: "b", CreateTime: at(2), Metadata: structpb.NewNumberValue(2)},
		{VersionId: "3", DisplayName: "c", Metadata: structpb.NewNumberValue(1)},
	}
	for text, want := range map[string]string{
		"":                                      "0123",
		"display_name":                          "1023",
		"display_name desc, create_time":        "3021",
		"createTime DESC":                       "1203",
		"labels.k desc":                         "1023",
		"metadata desc":                         "2301",
		"container_spec.deployment_timeout asc": "0123",
		"model":                                 "0123",
	} {
		o, err := ParseOrderBy(text, modelSchema())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		sorted := slices.Clone(models)
		slices.SortStableFunc(sorted, func(a, b *pb.Model) int { return o.Compare(a.ProtoReflect(), b.ProtoReflect()) })
		var got strings.Builder
		for _, m := range sorted {
			got.WriteString(m.VersionId)
		}
		if got.String() != want {
			t.Errorf("order %q = %s, want %s", text, got.String(), want)
		}
	}
	for _, text := range []string{"nope", "display_name up", "display_name desc x", ",", "labels", "container_spec", "version_aliases", "a..b", strings.Repeat("name,", 20) + "name"} {
		if _, err := ParseOrderBy(text, modelSchema()); CodeOf(err) != codes.InvalidArgument {
			t.Errorf("order %q: %v", text, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`display_name="a*" AND (labels.team=ml OR create_time>"2026-01-01T00:00:00Z") AND NOT labels."a key":*`,
		`metadata.in."deep:er"=two`, `in_context("x","y")`, `parents:"a","b" -model=1`, "((", `a.b.c:*`, "x='", "model=77 OR", `name="\*\\"`,
	} {
		f.Add(seed)
	}
	m := sampleModel(f).ProtoReflect()
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseFilter(text, modelSchema())
		if err != nil {
			if CodeOf(err) != codes.InvalidArgument {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		calls := func(string, []string) (bool, error) { return true, nil }
		yes, err := parsed.Match(m, calls)
		if err != nil || parsed.Empty() {
			return
		}
		negated, err := ParseFilter("NOT ("+text+")", modelSchema())
		if err != nil {
			t.Fatalf("NOT (%q): %v", text, err)
		}
		if no, err := negated.Match(m, calls); err != nil || no == yes {
			t.Fatalf("%q and its negation are both %v, %v", text, yes, err)
		}
	})
}

func FuzzOrderBy(f *testing.F) {
	for _, seed := range []string{"create_time desc, display_name", "labels.k", "metadata.a.b desc", ",,", "`a.b`", "model"} {
		f.Add(seed)
	}
	a, b := sampleModel(f).ProtoReflect(), (&pb.Model{DisplayName: "z"}).ProtoReflect()
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOrderBy(text, modelSchema())
		if err != nil {
			return
		}
		if o.Compare(a, a) != 0 || o.Compare(a, b) != -o.Compare(b, a) {
			t.Fatalf("%q is not an order", text)
		}
	})
}
