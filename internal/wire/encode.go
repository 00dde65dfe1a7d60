package wire

import (
	"net/http"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tategu/internal/wire/apiv1"
)

// marshal gives m as JSON; types know what is packed in an Any.
func (a alt) marshal(m proto.Message, types *apiv1.Registry) ([]byte, error) {
	return protojson.MarshalOptions{UseEnumNumbers: a.enumInts, Resolver: types}.Marshal(m)
}

// writeAnswer writes one message, or the bytes of an HttpBody as they are.
func writeAnswer(w http.ResponseWriter, m proto.Message, a alt, types *apiv1.Registry) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if raw, ok := m.(*httpbody.HttpBody); ok && !a.wrapped {
		h.Set("Content-Type", raw.ContentType)
		_, _ = w.Write(raw.Data) // the caller may be gone
		return
	}
	data, err := a.marshal(m, types)
	if err != nil {
		writeError(w, internalError(h.Get("X-Request-Id")))
		return
	}
	h.Set("Content-Type", contentJSON)
	_, _ = w.Write(data) // the caller may be gone
}

// streamWriter writes a server stream: a JSON array, server-sent events, or the
// bytes of HttpBody messages one after the other.
type streamWriter struct {
	w     http.ResponseWriter
	out   protoreflect.MessageType
	alt   alt
	begun bool
	types *apiv1.Registry
}

func (s *streamWriter) raw() bool { return isHTTPBody(s.out.Descriptor()) && !s.alt.wrapped }

// send writes one message and flushes it.
func (s *streamWriter) send(m proto.Message) error {
	m, err := answerAs(m, s.out)
	if err != nil {
		return err
	}
	if raw, ok := m.(*httpbody.HttpBody); ok && s.raw() {
		s.begin(raw.ContentType)
		return s.write(raw.Data)
	}
	data, err := s.alt.marshal(m, s.types)
	if err != nil {
		return err
	}
	return s.item(data)
}

func (s *streamWriter) begin(contentType string) {
	if !s.begun {
		s.w.Header().Set("Content-Type", contentType)
		s.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	s.begun = true
}

func (s *streamWriter) item(data []byte) error {
	if s.alt.sse {
		s.begin("text/event-stream")
		return s.write(append(append([]byte("data: "), data...), "\r\n\r\n"...))
	}
	lead := "[" // https://cloud.google.com streams JSON as the elements of one array
	if s.begun {
		lead = ",\r\n"
	}
	s.begin(contentJSON)
	return s.write(append([]byte(lead), data...))
}

func (s *streamWriter) write(b []byte) error {
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// end closes the stream. An error in the middle becomes its last element; raw
// bytes have no place for one and are cut off.
func (s *streamWriter) end(err error) {
	if err != nil {
		if s.raw() {
			panic(http.ErrAbortHandler)
		}
		_, body := errorBody(err)
		if s.item(body) != nil {
			return // the caller is gone
		}
	}
	switch {
	case s.raw():
		s.begin("application/octet-stream")
		_ = s.write(nil) // an empty stream still has headers
	case s.alt.sse:
		s.begin("text/event-stream")
		_ = s.write(nil) // the same
	case s.begun:
		_ = s.write([]byte("]")) // the caller may be gone
	default:
		s.begin(contentJSON)
		_ = s.write([]byte("[]")) // the same
	}
}
