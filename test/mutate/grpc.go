package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	_ "cloud.google.com/go/longrunning/autogen/longrunningpb"       // Operations
	_ "cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb" // Projects
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// grpcRequest turns the JSON of a call into frames and breaks them.
func (g *generator) grpcRequest(r *rand.Rand, q *request, plain bool) {
	text := q.body
	if !plain && r.IntN(2) == 0 {
		changed, how := mutateJSON(r, text)
		text = changed
		q.note("message: %s", how)
	}
	msg := message(q.target, text)
	if msg == nil { // what JSON cannot say of this message
		msg = message(q.target, q.body)
	}
	q.set("content-type", "application/grpc")
	q.set("te", "trailers")
	if !plain && r.IntN(2) == 0 {
		changed, how := mutateBytes(r, msg)
		msg = changed
		q.note("message bytes: %s", how)
	}
	q.body = frame(0, msg)
	if !plain && r.IntN(3) == 0 {
		mutateFrame(r, q, msg)
	}
}

func frame(compressed byte, msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(msg))), msg...)
}

func mutateFrame(r *rand.Rand, q *request, msg []byte) {
	switch r.IntN(12) {
	case 0:
		q.body = frame(1, msg)
		q.note("compressed flag without an encoding")
	case 1:
		q.set("grpc-encoding", "gzip")
		q.body = frame(1, msg)
		q.note("no gzip in it")
	case 2:
		q.set("grpc-encoding", "gzip")
		q.body = frame(1, packed(msg))
		q.note("gzip")
	case 3:
		q.set("grpc-encoding", "gzip")
		q.body = frame(1, packed(make([]byte, 80<<20)))
		q.note("gzip that unpacks to 80 MB")
	case 4:
		q.set("grpc-encoding", "snappy")
		q.body = frame(1, msg)
		q.note("an unknown compression")
	case 5:
		q.body = append(q.body, q.body...)
		q.note("two messages")
	case 6:
		q.body = nil
		q.note("no message")
	case 7:
		binary.BigEndian.PutUint32(q.body[1:], 1<<31)
		q.note("a length of 2 GB")
	case 8:
		binary.BigEndian.PutUint32(q.body[1:], uint32(len(msg)+10))
		q.note("a message that ends early")
	case 9:
		q.set("grpc-timeout", []string{"1n", "0S", "x", "99999999999H", "-1S"}[r.IntN(5)])
		q.note("grpc-timeout %s", q.get("grpc-timeout"))
	case 10:
		q.target = []string{"", "x", "x/", "/", "google.cloud.aiplatform.v1.ModelService/Nope", "google.cloud.aiplatform.v9.ModelService/GetModel", "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", strings.Repeat("m/", 3000)}[r.IntN(10)]
		q.note("method %s", clip([]byte(q.target), 60))
	default:
		q.set("content-type", []string{"application/grpc+json", "application/grpc-web", "application/grpcx", "application/grpc+proto"}[r.IntN(4)])
		q.note("content type %s", q.get("content-type"))
	}
}

func packed(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b) // into memory
	_ = w.Close()     // the same
	return out.Bytes()
}

// message gives the bytes of a method's request, nil when the text is no such
// message.
func message(method string, text []byte) []byte {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.Replace(method, "/", ".", 1)))
	if err != nil {
		return nil
	}
	md, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil
	}
	m := dynamicpb.NewMessage(md.Input())
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, m); err != nil {
		return nil
	}
	data, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m)
	if err != nil {
		return nil
	}
	return data
}

// sendGRPC makes one call over cleartext HTTP/2.
func (c *client) sendGRPC(ctx context.Context, q *request) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+"/", bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	r.URL.Path = "/" + q.target
	for _, h := range q.header {
		r.Header.Set(h[0], h[1])
	}
	resp, err := c.h2.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body, code: -1}
	for _, h := range []http.Header{resp.Trailer, resp.Header} {
		if v := h.Get("Grpc-Status"); v != "" {
			if a.code, err = strconv.Atoi(v); err != nil {
				return nil, fmt.Errorf("grpc-status %q: %w", v, err)
			}
			a.message = h.Get("Grpc-Message")
			break
		}
	}
	return a, nil
}
