package wire

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/wire/apiv1"
)

// FuzzMessage reads any bytes as a request of several types: a message that
// writes itself again, or the caller's fault.
func FuzzMessage(f *testing.F) {
	types := []proto.Message{&pb.PredictRequest{}, &pb.CreatePipelineJobRequest{}, &pb.ListModelsRequest{}, &pb.CreateArtifactRequest{}, &pb.DeployModelRequest{}}
	for _, m := range []proto.Message{
		&pb.PredictRequest{Endpoint: "projects/p/locations/l/endpoints/1", Instances: []*structpb.Value{structpb.NewNumberValue(1), structpb.NewNullValue()}},
		&pb.ListModelsRequest{Parent: "projects/p/locations/l", Filter: "a=b", PageSize: -1},
		&pb.CreatePipelineJobRequest{Parent: "p", PipelineJob: &pb.PipelineJob{DisplayName: "d", PipelineSpec: &structpb.Struct{Fields: map[string]*structpb.Value{"a": {}}}}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	c := codec{encoding.GetCodecV2(grpcproto.Name)}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range types {
			r := &received{message: kind.ProtoReflect().New().Interface()}
			if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, r); err != nil {
				t.Fatalf("grpc-go would answer INTERNAL: %v", err)
			}
			if err := r.check(); err != nil {
				if resource.CodeOf(err) != codes.InvalidArgument {
					t.Fatal(err)
				}
				continue
			}
			if _, err := proto.Marshal(r.message); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzCountJSON: a text never holds more values than it is counted for.
func FuzzCountJSON(f *testing.F) {
	for _, s := range []string{"1", "[1,2]", `{"a":{"b":[]},"c":"x,[{\",["}`, `[[[]]]`, `"\\",`, `["\u0022,"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := &structpb.Value{}
		if v.UnmarshalJSON([]byte(s)) != nil {
			return
		}
		if got, atLeast := countJSON([]byte(s)), values(v); got < atLeast {
			t.Fatalf("%q has %d values and is counted for %d", s, atLeast, got)
		}
	})
}

func values(v *structpb.Value) int {
	n := 1
	for _, below := range v.GetListValue().GetValues() {
		n += values(below)
	}
	for _, below := range v.GetStructValue().GetFields() {
		n += values(below)
	}
	return n
}

// FuzzConnect: the head of a CONNECT is read to its empty line, and not a byte
// further, since what follows belongs to the tunnel.
func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		"CONNECT a:1 HTTP/1.1\r\n\r\n\x16\x03\x01", "CONNECT a:1 HTTP/1.1\r\nHost: b:2\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n", "CONNECT a HTTP/1.1\r\n\r\n", "CONNECT [::1]:443 HTTP/1.0\r\n\r\n",
		"CONNECT  HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\n\n", "GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", "CONNECT a:1\x00b HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nX: " + strings.Repeat("y", 70000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := bufio.NewReader(strings.NewReader(s))
		target, err := readConnect(r)
		if err != nil {
			return
		}
		rest, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		head, after, ok := strings.Cut(s, "\r\n\r\n")
		if !ok || string(rest) != after {
			t.Fatalf("%q left %q", s, rest)
		}
		if !strings.HasPrefix(head, "CONNECT ") || !strings.Contains(head, target) || strings.ContainsAny(target, "\r\n") {
			t.Fatalf("%q has the target %q", s, target)
		}
	})
}

// FuzzHost: a certificate is made for our names and the API's hosts alone, and
// what is served here is never also sent out.
func FuzzHost(f *testing.F) {
	for _, s := range []string{
		"aiplatform.googleapis.com:443", "us-central1-aiplatform.googleapis.com", "b.storage.googleapis.com.", "[::1]:1", "x.tategu.internal", "evil.com", "a.b-aiplatform.googleapis.com",
		"STORAGE.GOOGLEAPIS.COM", "evil.com/.googleapis.com", ".googleapis.com", "storage.googleapis.com.evil.com", "[x", "a:b:c", "\x00.tategu.internal",
	} {
		f.Add(s)
	}
	h := newHosts([]string{"Own.Example:443"})
	f.Fuzz(func(t *testing.T, s string) {
		host := canonicalHost(s)
		if again := canonicalHost(host); again != host && !strings.ContainsAny(host, ":[].") {
			t.Fatalf("%q is %q, and that is %q", s, host, again)
		}
		mine := func(suffix string) bool { return strings.HasSuffix(host, suffix) }
		if h.mayMint(host) && !mine(".googleapis.com") && !mine(".tategu.internal") && host != "console.cloud.google.com" {
			t.Fatalf("a certificate for %q", host)
		}
		if implemented(host) && !ofTheCloud(host) && host != "console.cloud.google.com" {
			t.Fatalf("%q is served and may be tunnelled to", host)
		}
	})
}

// FuzzGunzip: what a body unpacks to is what was packed, or an error of the
// caller's; never more than the bound on its ratio.
func FuzzGunzip(f *testing.F) {
	pack := func(plain []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(plain); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	whole := pack([]byte(`{"a":[1,2,3]}`))
	for _, b := range [][]byte{whole, whole[:len(whole)-3], whole[:5], append(slices.Clone(whole), whole...), append(slices.Clone(whole), 'x'), pack(make([]byte, 3<<20)), {}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		g := &gunzip{packed: io.NopCloser(bytes.NewReader(packed)), limit: 4 << 20}
		plain, err := io.ReadAll(g)
		if len(plain) > unpackFree+len(packed)*unpackRatio {
			t.Fatalf("%d bytes unpack to %d", len(packed), len(plain))
		}
		if _, large := errors.AsType[*http.MaxBytesError](err); err != nil && !large && resource.CodeOf(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := io.ReadAll(z); err != nil || !bytes.Equal(want, plain) {
			t.Fatalf("%d bytes, want %d, %v", len(plain), len(want), err)
		}
	})
}

// TestLimits: requests that would take hundreds of megabytes as messages are
// refused before they become some.
func TestLimits(t *testing.T) {
	t.Parallel()
	many := []byte("[" + strings.Repeat("1,", maxValues) + "1]")
	if err := checkJSON(many, api.Limits{}); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("many values: %v", err)
	}
	if err := checkJSON([]byte(`"`+strings.Repeat("x,", maxValues)+`"`), api.Limits{}); err != nil {
		t.Errorf("one long text: %v", err)
	}
	req := &pb.PredictRequest{Instances: make([]*structpb.Value, maxValues+1)}
	for i := range req.Instances {
		req.Instances[i] = &structpb.Value{}
	}
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkWire(data, req.ProtoReflect().Descriptor(), api.Limits{}); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("many messages: %v", err)
	}
	types, err := apiv1.Load()
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{route: &route{method: &method{}, body: "*"}, types: types}
	deep := `{"instances":[` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `]}`
	if err := x.decodeBody((&pb.PredictRequest{}).ProtoReflect(), []byte(deep), ""); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("deep nesting: %v", err)
	}
}

// TestCountsAgree: what is let through as JSON is let through as a message, and a list
// of too many numbers by neither.
func TestCountsAgree(t *testing.T) {
	t.Parallel()
	fields := map[string]any{}
	for i := range maxValues / 8 {
		fields[strconv.Itoa(i)] = map[string]any{"a": "b", "c": []any{"d"}} // five values, with the brackets seven
	}
	list := make([]any, maxValues)
	for i := range list {
		list[i] = float64(i % 10)
	}
	for name, c := range map[string]struct {
		value any
		want  codes.Code
	}{"nested": {fields, codes.OK}, "list": {list, codes.InvalidArgument}} {
		value, err := structpb.NewValue(c.value)
		if err != nil {
			t.Fatal(err)
		}
		text, err := value.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		req := &pb.PredictRequest{Instances: []*structpb.Value{value}}
		data, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := resource.CodeOf(checkJSON([]byte(`{"instances":[`+string(text)+`]}`), api.Limits{})); got != c.want {
			t.Errorf("%s as JSON: %s, want %s", name, got, c.want)
		}
		if got := resource.CodeOf(checkWire(data, req.ProtoReflect().Descriptor(), api.Limits{})); got != c.want {
			t.Errorf("%s as a message: %s, want %s", name, got, c.want)
		}
	}
}
